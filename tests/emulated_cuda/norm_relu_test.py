"""The CUDA kernels around attention, run thread by thread, and the CPU's."""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import _kernels, kernels
from tests.kernels.cases import random_arrays

# N, H, W, C: one and several pixels for each thread, channels that accesses of
# 16 bytes divide in float32, in half types as well, and not, partial blocks of
# pixels and channels, and more bands of pixels than one.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 12, 13, 33),
    (3, 4, 4, 70),
    (2, 3, 5, 8),
    (1, 2, 3, 12),
    (1, 25, 27, 40),
    (2, 13, 9, 264),
]


def workspace(vectors, channels):
    size = kernels.norm_relu_workspace(vectors, channels)
    return np.full((1, 1, 1, size), np.nan)


def norm_relu(module, shape, pool, dtype, **extra):
    batch, height, width, channels = shape
    x, grad, *vectors = random_arrays(
        shape,
        (batch, height // pool, width // pool, channels),
        *[(1, 1, 1, channels)] * 5,
        dtype=dtype,
    )
    wide = "float64" if dtype == "float64" else "float32"
    scale, shift, mean, constant, slope = (v.astype(wide) for v in vectors)
    output, again, grad_x = map(np.zeros_like, (grad, grad, x))
    sums = np.zeros((4, 1, 1, 1, channels))
    module.norm_relu_forward(x, scale, shift, output, pool=pool)
    module.norm_relu_sums(
        grad, x, scale, shift, mean, sums[0], sums[1], again, pool=pool, **extra
    )
    module.norm_relu_backward(
        grad, x, scale, shift, constant, slope, grad_x, pool=pool
    )
    if x.size > 0:
        module.channel_moments(x, sums[2], sums[3], **extra)
    return output, again, grad_x, sums


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float64", 1e-12), ("float32", 1e-4), ("float16", 0.02)],
)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_relu_is_that_of_the_cpu(shape, pool, dtype, bound):
    extra = {"workspace": workspace(2, shape[3])}
    results = norm_relu(kernels, shape, pool, dtype, **extra)
    expected = norm_relu(cuda_kernels, shape, pool, dtype)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("outlier", [0, 1 << 16, (1 << 20) - 1])
def test_moments_bear_an_outlying_pixel(outlier, dtype):
    (x,) = random_arrays((1, 1 << 10, 1 << 10, 1), dtype=dtype)
    x.reshape(-1)[outlier] = 1e4
    mean, variance = np.zeros((2, 1, 1, 1, 1))
    kernels.channel_moments(x, mean, variance, workspace=workspace(2, 1))
    exact = x.astype("float64")
    np.testing.assert_allclose(mean, exact.mean(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(variance, exact.var(), rtol=1e-5)


def stem(module, shape, channels, dtype, needs_x, **extra):
    batch, height, width, inputs = shape
    x, weight, shift, grad = random_arrays(
        shape,
        (1, 1, channels, inputs),
        (1, 1, 1, channels),
        (batch, height // 2, width // 2, channels),
        dtype=dtype,
    )
    output, grad_x = np.zeros_like(grad), np.zeros_like(x)
    grads = np.zeros(weight.shape), np.zeros(shift.shape)
    module.stem_forward(x, weight, shift, output)
    module.stem_backward(
        grad, x, weight, shift, grad_x if needs_x else None, *grads, **extra
    )
    return output, grad_x, *grads


@pytest.mark.parametrize("needs_x", [True, False])
@pytest.mark.parametrize(
    ("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-4)]
)
@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((1, 2, 2, 1), 1),
        ((2, 5, 7, 3), 20),
        ((1, 12, 9, 4), 70),
        ((1, 31, 34, 3), 30),
        ((1, 31, 34, 3), 132),
    ],
)
def test_stem_is_that_of_the_cpu(shape, channels, dtype, bound, needs_x):
    extra = {"workspace": workspace(shape[3] + 1, channels)}
    results = stem(kernels, shape, channels, dtype, needs_x, **extra)
    expected = stem(cuda_kernels, shape, channels, dtype, needs_x)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=bound, atol=bound)


@pytest.mark.parametrize("channels", [7, 8])
@pytest.mark.parametrize("pool", [1, 2])
def test_nan_stays(pool, channels):
    def run(module, **extra):
        x, grad, vector = random_arrays(
            (1, 6, 4, channels),
            (1, 6 // pool, 4 // pool, channels),
            (1, 1, 1, channels),
            dtype="float32",
        )
        x[0, 2, 1, channels - 1] = np.nan
        output, grad_x = np.zeros_like(grad), np.zeros_like(x)
        sums = np.zeros((2, 1, 1, 1, channels))
        module.norm_relu_forward(x, vector, vector, output, pool=pool)
        module.norm_relu_sums(
            grad, x, *[vector] * 3, *sums, None, pool=pool, **extra
        )
        module.norm_relu_backward(grad, x, *[vector] * 4, grad_x, pool=pool)
        return output, sums, grad_x

    results = run(kernels, workspace=workspace(2, channels))
    for result, value in zip(results, run(cuda_kernels), strict=True):
        assert np.isnan(result).sum() == 1
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", [2, 3])
def test_nan_stays_in_the_stem(inputs):
    def run(module, **extra):
        x, weight, shift, grad = random_arrays(
            (1, 4, 6, inputs),
            (1, 1, 8, inputs),
            (1, 1, 1, 8),
            (1, 2, 3, 8),
            dtype="float32",
        )
        x[0, 1, 2, 1] = np.nan
        output, grad_x = np.zeros_like(grad), np.zeros_like(x)
        grads = np.zeros(weight.shape), np.zeros(shift.shape)
        module.stem_forward(x, weight, shift, output)
        module.stem_backward(grad, x, weight, shift, grad_x, *grads, **extra)
        return output, grad_x, *grads

    results = run(kernels, workspace=workspace(inputs + 1, 8))
    assert np.isnan(results[0]).sum() == np.isnan(results[2]).sum() == 8
    for result, value in zip(results, run(cuda_kernels), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 4, 4, 0), (2, 1, 1, 3)])
def test_nothing_to_do(shape):
    # Of a 1 x 1 image no window is full.
    extra = {"workspace": workspace(2, shape[3])}
    output, _, grad_x, sums = norm_relu(kernels, shape, 2, "float32", **extra)
    expected = norm_relu(cuda_kernels, shape, 2, "float32")
    assert output.size == 0
    np.testing.assert_allclose(grad_x, expected[2], rtol=1e-5)
    np.testing.assert_array_equal(sums[:2], 0)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((0, 4, 4, 3), 5), ((2, 4, 4, 3), 0), ((2, 4, 4, 0), 5)],
)
def test_a_stem_with_nothing_to_do(shape, channels):
    extra = {"workspace": workspace(shape[3] + 1, channels)}
    results = stem(kernels, shape, channels, "float32", True, **extra)
    expected = stem(cuda_kernels, shape, channels, "float32", True)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5)


def moved(array):
    """The same, an element further than memory is aligned."""
    memory = np.empty(array.size + 64, array.dtype)
    address = memory.__array_interface__["data"][0]
    begin = -address % 64 // array.itemsize + 1
    copy = memory[begin : begin + array.size].reshape(array.shape)
    copy[...] = array
    return copy


class Moving:
    """The kernels, not between guards, with tensor `number` of each call moved.

    `calls` has how many tensors each call got.
    """

    def __init__(self, number):
        self.number, self.calls = number, []

    def __getattr__(self, name):
        def call(*args, **extra):
            copies = list(args)
            arrays = [i for i, a in enumerate(args) if a is not None]
            self.calls.append(len(arrays))
            if self.number < len(arrays):
                i = arrays[self.number]
                copies[i] = moved(args[i])
            getattr(_kernels, name)(*copies, **extra)
            for original, copy in zip(args, copies, strict=True):
                if copy is not original:
                    original[...] = copy

        return call


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pool", [1, 2])
def test_each_tensor_may_be_unaligned(pool, dtype, number):
    shape, extra = (1, 5, 7, 16), {"workspace": workspace(2, 16)}
    moving = Moving(number)
    results = norm_relu(moving, shape, pool, dtype, **extra)
    expected = norm_relu(cuda_kernels, shape, pool, dtype)
    assert max(moving.calls) == 8
    bound = 0.02 if dtype == "float16" else 1e-4
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=bound, atol=bound)


@pytest.mark.parametrize("number", range(7))
def test_each_tensor_of_the_stem_may_be_unaligned(number):
    shape, extra = (1, 5, 7, 3), {"workspace": workspace(4, 16)}
    moving = Moving(number)
    results = stem(moving, shape, 16, "float32", True, **extra)
    expected = stem(cuda_kernels, shape, 16, "float32", True)
    assert max(moving.calls) == 7
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-4)


def test_two_runs_have_the_same_bits():
    runs = [
        norm_relu(
            kernels, (2, 9, 8, 40), 2, "float32", workspace=workspace(2, 40)
        )
        for _ in range(2)
    ]
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_small_workspace_is_refused():
    with pytest.raises(ValueError, match="workspace must have shape"):
        norm_relu(
            kernels, (1, 2, 2, 3), 1, "float32", workspace=workspace(1, 3)
        )
