"""DLPack capsules made by hand: what no exporter at hand would produce."""

import ctypes
import re

import numpy as np
import pytest

import cuda_kernels

CPU, CUDA, OPENCL = 1, 2, 4
FLOAT = 2


class Description(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Description),
    )


class Foreign:
    """A 1 x 1 x 2 x 3 float32 tensor on the CPU, but for the changes."""

    def __init__(self, major=1, flags=0, shape=(1, 1, 2, 3), **changes):
        self.memory = (ctypes.c_float * 7)(*range(7))
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        fields = {
            "data": ctypes.addressof(self.memory),
            "device_type": CPU,
            "ndim": len(shape),
            "code": FLOAT,
            "bits": 32,
            "lanes": 1,
            "shape": self.shape,
        }
        self.versioned = Versioned(
            major=major, flags=flags, tensor=Description(**(fields | changes))
        )

    def __dlpack__(self, **options):
        new_capsule = ctypes.pythonapi.PyCapsule_New
        new_capsule.restype = ctypes.py_object
        new_capsule.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_void_p,
        ]
        return new_capsule(
            ctypes.addressof(self.versioned), b"dltensor_versioned", None
        )

    def __dlpack_device__(self):
        tensor = self.versioned.tensor
        return tensor.device_type, tensor.device_id


def doubled(input, output=None):
    """Writes 2 * input by an aggregation with a footprint of 1."""
    output = np.zeros((1, 1, 2, 3), np.float32) if output is None else output
    weight = np.full((1, 1, 1, 6), 2, np.float32)
    cuda_kernels.aggregation_forward(input, weight, output, kernel_size=1)
    return output


def test_strides_may_be_left_out():
    assert doubled(Foreign()).ravel().tolist() == [0, 2, 4, 6, 8, 10]


def test_without_strides_one_pixel_is_in_both_layouts():
    """Four channels of 3 x 3 in channels-last make four of one pixel."""
    input = np.ones((1, 3, 3, 4), np.float32).transpose(0, 3, 1, 2)
    weight, output = (
        np.ones((1, 1, 9, 1), np.float32),
        Foreign(shape=(1, 4, 1, 1)),
    )
    cuda_kernels.aggregation_forward(input, weight, output, kernel_size=3)
    assert list(output.memory)[:4] == [9] * 4


def test_byte_offset_is_added():
    found = doubled(Foreign(byte_offset=4)).ravel().tolist()
    assert found == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"major": 2}, "export DLPack 1.x, got 2.x"),
        ({"data": None}, "have memory, got a null data pointer"),
        ({"byte_offset": 2}, "be aligned to its element size"),
        ({"bits": 8}, "be float32, float64, float16 or bfloat16"),
        ({"lanes": 4}, "be float32, float64, float16 or bfloat16"),
        ({"shape": (1, 1, -2, 3)}, "have sizes of at least 0, got -2"),
        ({"shape": (2**40, 2**40, 2, 3)}, "have less than 2^63 bytes, got"),
        ({"device_type": OPENCL}, "be on the CPU or a CUDA device, got"),
    ],
)
def test_what_breaks_a_rule_is_refused(changes, rule):
    message = re.escape(f"aggregation_forward: input must {rule}")
    with pytest.raises(ValueError, match=f"^{message}"):
        doubled(Foreign(**changes))


@pytest.mark.parametrize("flags", [1, 2])
def test_outputs_are_neither_read_only_nor_copies(flags):
    message = "output must be writable, got a read-only tensor"
    with pytest.raises(ValueError, match=message):
        doubled(Foreign(), Foreign(flags=flags))


def test_tensors_are_on_one_device():
    message = "weight must be on the device of input, cuda:0, got cpu"
    with pytest.raises(ValueError, match=message):
        doubled(Foreign(device_type=CUDA))


def test_cuda_tensors_never_run_on_the_cpu():
    # There is no device 99, whatever this machine has.
    on_cuda = {"device_type": CUDA, "device_id": 99}
    weight, output = Foreign(shape=(1, 1, 1, 6), **on_cuda), Foreign(**on_cuda)
    error, message = (
        (RuntimeError, "could not .* CUDA device")
        if cuda_kernels.built_with_cuda()
        else (ValueError, "tensors must be on the CPU, .* got cuda:99")
    )
    with pytest.raises(error, match=message):
        cuda_kernels.aggregation_forward(
            Foreign(**on_cuda), weight, output, kernel_size=1
        )
    assert list(output.memory) == list(range(7))


def test_devices_are_counted():
    count = cuda_kernels.cuda_device_count()
    assert count >= 0 and (cuda_kernels.built_with_cuda() or count == 0)
