"""Gives an emulated module memory in which a wrong access is an error.

Each call works on copies of its tensors that end at a page which nobody can
access (in the descending order: begin at one; see emulator.h). Inputs are read
only, outputs start as NaN and must have been written when the call is over.
Tensors that overlap overlap in the copies too. Where a tensor ends at the page,
it begins on a boundary of its elements and perhaps of no more; where it begins
there, on one of 4096 bytes.
"""

import ctypes
import dataclasses
import functools
import re

import numpy as np
import torch

# The outputs begin with this parameter.
FIRST_OUTPUT = {
    "aggregation_forward": "output",
    "aggregation_backward": "grad_input",
    "subtraction2_forward": "output",
    "subtraction2_backward": "grad_a",
    "pairwise_forward": "output",
    "pairwise_backward": "grad_features",
    "pairwise_difference": "first",
    "pairwise_difference_backward": "grad_features",
    "pairwise_moments": "first",
    "pairwise_moments_backward": "grad_features",
    "pairwise_workspace": "",
    "patchwise_hidden_forward": "hidden",
    "patchwise_hidden_backward": "grad_phi",
    "patchwise_core_forward": "output",
    "patchwise_core_backward": "grad_hidden",
    "patchwise_tensor_workspace": "",
    "channel_moments": "mean",
    "norm_relu_forward": "output",
    "norm_relu_sums": "sum",
    "norm_relu_backward": "grad_x",
    "stem_forward": "output",
    "stem_backward": "grad_x",
}


class Guarded:
    """A module whose functions get guarded copies of what they are called with.

    Functions that take no tensor, and tensors without elements, are left as
    they are.

    Raises:
        TypeError: by a function that is called with tensors and not in
            `first_output`.
        RuntimeError: where emulated CUDA finds a fault, or an element of an
            output has not been written.
    """

    def __init__(self, module, first_output=FIRST_OUTPUT):
        self._module = module
        self._first_output = first_output
        self._library = ctypes.CDLL(module.__file__)
        self._library.emulated_cuda_allocate.restype = ctypes.c_void_p
        self._library.emulated_cuda_allocate.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_size_t,
        ]
        for name in ("make_read_only", "release"):
            function = getattr(self._library, f"emulated_cuda_{name}")
            function.argtypes = [ctypes.c_void_p]

    def __getattr__(self, name):
        function = getattr(self._module, name)
        if not callable(function):
            return function
        return functools.wraps(function)(
            functools.partial(self._call, name, function)
        )

    def _call(self, op, function, *args, **kwargs):
        tensors = _tensors(op, function, args, kwargs, self._first_output)
        regions = _regions(tensors)
        try:
            for region in regions:
                region.copy_in(self._library)
            copies = {tensor.key: tensor.copy for tensor in tensors}
            result = function(
                *(copies.get(i, value) for i, value in enumerate(args)),
                **{k: copies.get(k, value) for k, value in kwargs.items()},
            )
            for region in regions:
                region.copy_out()
        finally:
            for region in regions:
                region.release(self._library)
        for tensor in tensors:
            tensor.require_written(op)
        return result


@dataclasses.dataclass
class _Tensor:
    """One argument, in bytes: [begin, end) of memory, and its copy there."""

    key: int | str
    name: str
    original: np.ndarray | torch.Tensor
    is_input: bool
    is_output: bool
    copy: np.ndarray | torch.Tensor | None = None

    @property
    def itemsize(self):
        if isinstance(self.original, np.ndarray):
            return self.original.itemsize
        return self.original.element_size()

    @property
    def strides(self):
        if isinstance(self.original, np.ndarray):
            return self.original.strides
        return [stride * self.itemsize for stride in self.original.stride()]

    @property
    def first(self):
        """The address of element 0."""
        if isinstance(self.original, np.ndarray):
            return self.original.__array_interface__["data"][0]
        return self.original.data_ptr()

    def _reach(self, sign):
        steps = zip(self.original.shape, self.strides, strict=True)
        return sum(
            (size - 1) * stride for size, stride in steps if stride * sign > 0
        )

    @property
    def begin(self):
        return self.first + self._reach(-1)

    @property
    def end(self):
        return self.first + self._reach(1) + self.itemsize

    def view(self, buffer, begin):
        """The same tensor in a buffer that stands for memory from begin on."""
        offset = self.first - begin
        if isinstance(self.original, np.ndarray):
            return np.ndarray(
                self.original.shape,
                self.original.dtype,
                buffer,
                offset,
                self.strides,
            )
        flat = torch.frombuffer(buffer, dtype=self.original.dtype)
        return flat.as_strided(
            self.original.shape,
            self.original.stride(),
            offset // self.itemsize,
        )

    def require_written(self, op):
        if not self.is_output:
            return
        array = self.original
        if isinstance(array, torch.Tensor):
            array = array.view(_BITS[array.element_size()]).numpy()
        bits = array.view(f"u{self.itemsize}")
        unwritten = np.argwhere(bits == np.iinfo(bits.dtype).max)
        if unwritten.size > 0:
            raise RuntimeError(
                f"emulated CUDA: {op}: {self.name} must be written, got "
                f"nothing at {len(unwritten)} of {bits.size} places, the first "
                f"of them {unwritten[0].tolist()}"
            )


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Region:
    """Tensors that overlap, and the memory that stands for theirs."""

    def __init__(self, tensors):
        self._tensors = tensors
        self._begin = min(tensor.begin for tensor in tensors)
        self._bytes = max(tensor.end for tensor in tensors) - self._begin
        self._address = None

    def copy_in(self, library):
        names = " and ".join(tensor.name for tensor in self._tensors)
        itemsize = min(tensor.itemsize for tensor in self._tensors)
        self._address = library.emulated_cuda_allocate(
            names.encode(), self._bytes, itemsize
        )
        if not self._address:
            raise MemoryError(f"{self._bytes} bytes for {names}")
        if not all(tensor.is_output for tensor in self._tensors):
            ctypes.memmove(self._address, self._begin, self._bytes)
        if all(tensor.is_input for tensor in self._tensors):
            library.emulated_cuda_make_read_only(self._address)
        buffer = (ctypes.c_char * self._bytes).from_address(self._address)
        for tensor in self._tensors:
            tensor.copy = tensor.view(buffer, self._begin)

    def copy_out(self):
        if not all(tensor.is_input for tensor in self._tensors):
            ctypes.memmove(self._begin, self._address, self._bytes)

    def release(self, library):
        if self._address:
            library.emulated_cuda_release(self._address)
        self._address = None


def _tensors(op, function, args, kwargs, first_output):
    keys = [*enumerate(args), *kwargs.items()]
    found = [
        (key, value)
        for key, value in keys
        if isinstance(value, np.ndarray | torch.Tensor)
    ]
    if not found:
        return []
    if op not in first_output:
        raise TypeError(
            f"guarded: {op} takes tensors and must be in FIRST_OUTPUT, got "
            f"{', '.join(first_output)}"
        )
    names = _parameters(function)
    first = first_output[op]
    outputs = names[names.index(first) :] if first else []
    tensors = []
    for key, value in found:
        name = names[key] if isinstance(key, int) else key
        scratch = name == "workspace"
        output = name in outputs and not scratch
        tensors.append(
            _Tensor(key, name, value, not output and not scratch, output)
        )
    return [tensor for tensor in tensors if 0 not in tensor.original.shape]


def _parameters(function):
    """The names, from the signature that pybind11 puts before the text."""
    signature = re.match(r"\w+\((.*?)\) -> ", function.__doc__)
    names = re.findall(r"(?:^|, )(\w+): ", signature[1])
    assert names, function.__doc__
    return names


def _regions(tensors):
    groups, end = [], 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
        if groups and tensor.begin < end:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
        end = max(end, tensor.end)
    return [_Region(group) for group in groups]
