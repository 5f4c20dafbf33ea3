"""Compares the fast CUDA kernels, emulated, with the simple ones of the CPU."""

import itertools

import numpy as np
import torch

import cuda_kernels
from tests.emulated_cuda import kernels
from tests.kernels.cases import fits
from tests.kernels.numpy_reference import Window

# Of the largest value; sums of up to 12 * 49 terms.
TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 3e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}

# Footprints with kernels of their own and others, on images that are smaller
# than them, a tile or several; paddings that mirror an image repeatedly.
SAME = [Window(k, padding=k // 2) for k in range(1, 12)]
RARE = [
    Window(k, stride, padding, dilation)
    for k, stride, padding, dilation in itertools.product(
        (1, 2, 3, 7), (1, 2, 3), (0, 3, 8), (1, 2)
    )
]
ZEROS = [
    Window(k, stride, padding, padding_mode="zeros")
    for k, stride, padding in itertools.product((3, 7), (1, 2), (0, 2, 9))
]
SMALL = [(1, 1), (1, 6), (5, 3), (7, 7), (9, 14)]
GEOMETRIES = [
    (size, window)
    for size, window in itertools.product(SMALL, SAME + RARE + ZEROS)
    if fits(window, size)
]
# Large enough for several tiles each way, and for threads of several rows.
LARGE = [
    ((33, 35), Window(7, padding=3)),
    ((20, 131), Window(7, padding=3)),
    ((36, 33), Window(3, padding=1)),
    ((37, 70), Window(3, padding=2, padding_mode="zeros")),
    ((30, 34), Window(5, 2, 2, 2)),
]
# Whose gradients have kernels of their own: 7, 14 or 28 outputs each way.
SMALL_OUTPUTS = [
    ((7, 7), Window(7, padding=3)),
    ((14, 14), Window(7, padding=3)),
    ((28, 28), Window(7, padding=3)),
    ((7, 7), Window(7, padding=3, padding_mode="zeros")),
    ((14, 14), Window(7, padding=3, padding_mode="zeros")),
    ((13, 13), Window(7)),
    ((10, 10), Window(7, padding=5)),
    ((5, 5), Window(7, padding=4)),
    ((1, 1), Window(7, padding=6)),
    ((3, 3), Window(7, padding=5, padding_mode="zeros")),
]


def random_tensors(*shapes, dtype=torch.float64):
    """The same normally distributed tensors each time."""
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in shapes
    ]


def results(module, function, inputs, shapes, window, **options):
    """Runs a kernel; outputs start as NaN, those without a shape are None."""
    outputs = [
        None if shape is None else inputs[0].new_full(shape, np.nan)
        for shape in shapes
    ]
    getattr(module, function)(*inputs, *outputs, **window.options, **options)
    return outputs


def assert_same_as_on_cpu(function, inputs, shapes, window):
    """The fast kernel on emulated CUDA against the simple one on the CPU."""
    found = results(kernels, function, inputs, shapes, window)
    wanted = results(
        cuda_kernels,
        function,
        [tensor.double() for tensor in inputs],
        shapes,
        window,
        implementation="simple",
    )
    tolerance = TOLERANCES[inputs[0].dtype]
    for one, other in zip(found, wanted, strict=True):
        if other is None or other.numel() == 0:
            continue
        atol = tolerance * max(1.0, other.abs().max().item())
        torch.testing.assert_close(
            one.double(), other, rtol=0, atol=atol, msg=f"{function} {window}"
        )
