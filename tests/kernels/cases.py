"""What the kernel tests run: compiled paths, sizes, windows, random inputs."""

import itertools

import numpy as np
from numpy.typing import DTypeLike, NDArray

import cuda_kernels
from tests.kernels.numpy_reference import Window

# (implementation, instruction set) of every compiled path that runs here.
PATHS = [
    ("simple", cuda_kernels.instruction_sets()[-1]),
    *(("fast", name) for name in cuda_kernels.instruction_sets()),
]

# Single rows and pixels, widths around the lanes of a vector, odd and even.
SIZES = [(1, 1), (1, 5), (2, 3), (4, 4), (7, 7), (9, 6), (18, 37)]

# Paddings reach beyond the small sizes.
WINDOWS = [
    Window(*values)
    for values in itertools.product(
        (1, 2, 3, 7), (1, 2, 3), (0, 1, 3, 7), (1, 2), ("reflect", "zeros")
    )
]

# For tests that are not about windows.
PLAIN = Window(3, padding=1)

# Two numbers of this type differ by less than this if their first bits agree.
TOLERANCE = {"float64": 1e-12, "float32": 3e-6, "float16": 2e-3}


def use_path(path: tuple[str, str]) -> dict[str, str]:
    """Selects the path's instruction set; returns its keyword argument."""
    cuda_kernels.use_instruction_set(path[1])
    return {"implementation": path[0]}


def fits(window: Window, size: tuple[int, int]) -> bool:
    """Whether the window has an output on an image of this size."""
    return min(window.outputs(side) for side in size) > 0


def random_arrays(
    *shapes: tuple, dtype: DTypeLike = "float64"
) -> list[NDArray]:
    """The same normally distributed arrays each time."""
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def channels_last(image: NDArray) -> NDArray:
    """A copy in channels-last of [N, C, H, W]."""
    return image.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


def pairwise_inputs(
    channels: tuple[int, int, int],
    image: tuple[int, int, int, int],
    dtype: DTypeLike = "float64",
) -> list[NDArray]:
    """Features, scale, shift, table, w1 and w2 for R, G, M and N, H, W, k."""
    relation, groups, value = channels
    batch, height, width, kernel_size = image
    shapes = [
        (batch, height, width, 2 * relation + value),
        (1, 1, 1, relation),
        (1, 1, 1, relation),
        (1, 1, kernel_size**2, relation),
        (1, 1, relation, relation),
        (1, 1, groups, relation),
    ]
    inputs = random_arrays(*shapes, dtype=dtype)
    for matrix in inputs[4:]:
        matrix /= relation**0.5
    return inputs
