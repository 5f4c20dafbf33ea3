"""The CUDA kernels around attention, run thread by thread, and the CPU's."""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import kernels
from tests.kernels.cases import random_arrays

# N, H, W, C: more and fewer pixels than bands, partial blocks of channels.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 12, 13, 33), (3, 4, 4, 70)]


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
    [((1, 2, 2, 1), 1), ((2, 5, 7, 3), 20), ((1, 12, 9, 4), 70)],
)
def test_stem_is_that_of_the_cpu(shape, channels, dtype, bound, needs_x):
    extra = {"workspace": workspace(shape[3] + 1, channels)}
    results = stem(kernels, shape, channels, dtype, needs_x, **extra)
    expected = stem(cuda_kernels, shape, channels, dtype, needs_x)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=bound, atol=bound)


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
