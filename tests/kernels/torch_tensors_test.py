"""torch tensors through the module: bfloat16, CUDA where there is any."""

import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

import cuda_kernels
from tests.kernels.cases import PATHS, use_path

DEVICES = ["cpu"] + ["cuda"] * (cuda_kernels.cuda_device_count() > 0)
WINDOW = {"kernel_size": 7, "padding": 3}


def every_op(dtype, device, **path):
    """Returns the results of all ops on the same numbers, as float64."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape):
        values = torch.randn(2, *shape, generator=generator)
        return values.bfloat16().to(device, dtype)

    x, grad = random(16, 9, 20), random(16, 9, 20)
    weight, taps = random(2, 49, 180), random(3, 49, 180)
    a, b = random(3, 9, 20), random(3, 9, 20)
    outputs = [torch.empty_like(like) for like in (x, x, weight, taps, a, b)]
    options = {**WINDOW, **path}
    cuda_kernels.aggregation_forward(x, weight, outputs[0], **options)
    cuda_kernels.aggregation_backward(grad, x, weight, *outputs[1:3], **options)
    cuda_kernels.subtraction2_forward(a, b, outputs[3], **options)
    cuda_kernels.subtraction2_backward(taps, *outputs[4:], **options)
    return [output.cpu().double() for output in outputs]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 3e-6),
        (torch.float16, 2e-3),
        (torch.bfloat16, 1e-2),
    ],
)
def test_types_and_devices_agree(dtype, tolerance, path, device):
    found = every_op(dtype, device, **use_path(path))
    wanted = every_op(torch.float64, "cpu", implementation="simple")
    for one, other in zip(found, wanted, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("path", PATHS)
def test_bfloat16_rounds_as_torch_does(path):
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    numbers = numbers.view(torch.bfloat16).reshape(1, 1, 256, 256)
    for factor in (1.0, -0.75, 1 / 3, 2.0**-120, 1e30):
        weight = torch.full((1, 1, 1, 2**16), factor, dtype=torch.bfloat16)
        output = torch.empty_like(numbers)
        cuda_kernels.aggregation_forward(
            numbers, weight, output, kernel_size=1, **use_path(path)
        )
        wanted = (numbers.float() * weight[0, 0, 0, 0].float()).bfloat16()
        torch.testing.assert_close(
            output, wanted, rtol=0, atol=0, equal_nan=True
        )


def test_a_tensor_that_requires_grad_is_refused():
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    weight = torch.zeros(1, 1, 1, 9)
    with pytest.raises(ValueError, match=r"input must be a tensor .*grad"):
        cuda_kernels.aggregation_forward(
            x, weight, torch.zeros(1, 1, 3, 3), kernel_size=1
        )


def test_tensors_without_memory_are_refused():
    weight, output = torch.zeros(1, 1, 1, 9), torch.zeros(1, 1, 3, 3)
    freed = torch.zeros(1, 1, 3, 3)
    freed.untyped_storage().resize_(0)
    for x in (freed, torch.zeros(1, 1, 3, 3, device="meta")):
        with pytest.raises(ValueError, match="input must "):
            cuda_kernels.aggregation_forward(x, weight, output, kernel_size=1)


def test_tensors_are_given_back():
    array = np.zeros((1, 1, 3, 3), np.float32)
    owner, x = weakref.ref(array), torch.from_numpy(array)
    del array
    weight, output = torch.zeros(1, 1, 1, 9), torch.zeros(1, 1, 3, 3)
    cuda_kernels.aggregation_forward(x, weight, output, kernel_size=1)
    assert owner() is not None
    del x
    assert owner() is None


def test_subclasses_speak_for_themselves():
    class Secret(torch.Tensor):
        def __dlpack__(self, **options):
            raise BufferError("not this one")

    x = torch.zeros(1, 1, 3, 3).as_subclass(Secret)
    weight, output = torch.zeros(1, 1, 1, 9), torch.zeros(1, 1, 3, 3)
    for _ in range(2):
        cuda_kernels.aggregation_forward(
            output.clone(), weight, output, kernel_size=1
        )
        with pytest.raises(ValueError, match=r"input must .*not this one"):
            cuda_kernels.aggregation_forward(x, weight, output, kernel_size=1)


def test_one_openmp_pool_is_mapped():
    program = (
        "import torch, cuda_kernels, pathlib\n"
        "maps = pathlib.Path('/proc/self/maps').read_text()\n"
        "print(len({line.split()[-1] for line in maps.splitlines()"
        " if 'libgomp' in line}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert finished.stdout.strip() == "1", finished.stderr
