"""The kernels of the layers around attention, with NumPy alone."""

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.cases import random_arrays

# N, H, W, C: whole and partial vectors of each instruction set, what is left
# over beside the windows, and more rows than there are bands.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 4, 2, 16),
    (3, 2, 3, 33),
    (40, 5, 4, 12),
]


@pytest.fixture(params=cuda_kernels.instruction_sets(), autouse=True)
def instruction_set(request):
    cuda_kernels.use_instruction_set(request.param)
    yield
    cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


def windows(x, pool):
    """The pixels of each window: [N, H / pool, W / pool, pool * pool, C]."""
    batch, height, width, channels = x.shape
    rows, columns = height // pool, width // pool
    x = x[:, : rows * pool, : columns * pool]
    x = x.reshape(batch, rows, pool, columns, pool, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, pool * pool, channels)


def routed(values, grad):
    """The gradient of each pixel of each window, through maximum and ReLU."""
    top = values.argmax(3)[..., None, :]
    grad = np.where(values.max(3) > 0, grad, 0)[..., None, :]
    return np.where(np.arange(values.shape[3])[:, None] == top, grad, 0)


def unfold(patches, shape, pool):
    """The image [N, H, W, C] of windows, zero elsewhere."""
    batch, rows, columns, _, channels = patches.shape
    patches = patches.reshape(batch, rows, columns, pool, pool, channels)
    patches = patches.transpose(0, 1, 3, 2, 4, 5)
    image = np.zeros(shape)
    image[:, : rows * pool, : columns * pool] = patches.reshape(
        batch, rows * pool, columns * pool, channels
    )
    return image


def vectors(channels, count, dtype):
    return random_arrays(*[(1, 1, 1, channels)] * count, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float64", 1e-12), ("float32", 2e-5)]
)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_relu_equals_its_definition(shape, pool, dtype, bound):
    batch, height, width, channels = shape
    x, grad = random_arrays(
        shape, (batch, height // pool, width // pool, channels), dtype=dtype
    )
    scale, shift, mean, constant, slope = vectors(channels, 5, dtype)
    options = {"pool": pool}
    output, again = np.full_like(grad, np.nan), np.full_like(grad, np.nan)
    cuda_kernels.norm_relu_forward(x, scale, shift, output, **options)
    sums = np.full((2, 1, 1, 1, channels), np.nan)
    cuda_kernels.norm_relu_sums(
        grad, x, scale, shift, mean, sums[0], sums[1], again, **options
    )
    grad_x = np.full_like(x, np.nan)
    cuda_kernels.norm_relu_backward(
        grad, x, scale, shift, constant, slope, grad_x, **options
    )
    # float32 kernels and float64 formulas may see another maximum of two.
    pixels = windows(x.astype("float64"), pool)
    values = scale * pixels + shift
    given = routed(values, grad)
    np.testing.assert_allclose(output, values.max(3).clip(0), atol=bound)
    np.testing.assert_array_equal(again, output)
    expected = (
        given.sum((0, 1, 2, 3)),
        (given * (pixels - mean[0])).sum((0, 1, 2, 3)),
    )
    np.testing.assert_allclose(
        sums.reshape(2, -1), expected, rtol=bound, atol=30 * bound
    )
    np.testing.assert_allclose(
        grad_x,
        unfold(scale * given, shape, pool) + constant + slope * x,
        atol=bound,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_equal_numpy(shape, dtype):
    (x,) = random_arrays(shape, dtype=dtype)
    mean, variance = np.full((2, 1, 1, 1, shape[3]), np.nan)
    cuda_kernels.channel_moments(x, mean, variance)
    x = x.astype("float64").reshape(-1, shape[3])
    bound = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(mean.ravel(), x.mean(0), atol=bound)
    np.testing.assert_allclose(variance.ravel(), x.var(0), atol=bound)


def test_the_gradient_may_be_overwritten_without_pooling():
    x, grad = random_arrays((2, 3, 4, 9), (2, 3, 4, 9))
    norm = vectors(9, 4, "float64")
    expected = np.empty_like(x)
    cuda_kernels.norm_relu_backward(grad, x, *norm, expected)
    cuda_kernels.norm_relu_backward(grad, x, *norm, grad)
    np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((1, 2, 2, 3), 1), ((2, 5, 7, 3), 20), ((40, 4, 3, 5), 33)],
)
def test_stem_equals_its_definition(shape, channels, dtype):
    batch, height, width, inputs = shape
    x, weight, shift, grad = random_arrays(
        shape,
        (1, 1, channels, inputs),
        (1, 1, 1, channels),
        (batch, height // 2, width // 2, channels),
        dtype=dtype,
    )
    output, grad_x = np.full_like(grad, np.nan), np.full_like(x, np.nan)
    grad_weight = np.full(weight.shape, np.nan)
    grad_shift = np.full(shift.shape, np.nan)
    cuda_kernels.stem_forward(x, weight, shift, output)
    cuda_kernels.stem_backward(
        grad, x, weight, shift, grad_x, grad_weight, grad_shift
    )
    x, matrix = x.astype("float64"), weight[0, 0].astype("float64")
    values = windows(x @ matrix.T + shift[0, 0, 0], 2)
    given = routed(values, grad)
    bound = 1e-11 if dtype == "float64" else 3e-4
    np.testing.assert_allclose(output, values.max(3).clip(0), atol=bound)
    np.testing.assert_allclose(
        grad_shift.ravel(), given.sum((0, 1, 2, 3)), atol=bound
    )
    np.testing.assert_allclose(
        grad_weight[0, 0],
        np.einsum("nijqc,nijqk->ck", given, windows(x, 2)),
        atol=bound,
    )
    image = unfold(given, (batch, height, width, channels), 2)
    np.testing.assert_allclose(grad_x, image @ matrix, atol=bound)


def call(**changes):
    arguments = {
        "x": np.zeros((2, 4, 4, 3), "float32"),
        "scale": np.zeros((1, 1, 1, 3), "float32"),
        "shift": np.zeros((1, 1, 1, 3), "float32"),
        "output": np.zeros((2, 2, 2, 3), "float32"),
        "pool": 2,
    }
    arguments.update(changes)
    cuda_kernels.norm_relu_forward(**arguments)


def test_a_call_without_mistakes_passes():
    call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": 3}, "norm_relu_forward: pool must be 1 or 2, got 3"),
        ({"pool": 2.0}, "pool must be 1 or 2, got 2.0"),
        (
            {"scale": np.zeros((1, 1, 1, 4), "float32")},
            r"scale must have shape \[1, 1, rows, columns\]",
        ),
        (
            {"shift": np.zeros((1, 1, 1, 3))},
            "shift must be a vector of the accumulator of x",
        ),
        (
            {"output": np.zeros((2, 4, 4, 3), "float32")},
            r"output must have shape \[N, H / pool, W / pool, C\]",
        ),
        ({"output": np.zeros((2, 2, 2, 3))}, "output must"),
        ({"x": [1, 2]}, "x must"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


def test_outputs_share_no_memory_with_inputs():
    x = np.zeros((1, 2, 2, 3))
    norm = vectors(3, 2, "float64")
    with pytest.raises(ValueError, match="output must"):
        cuda_kernels.norm_relu_forward(x, *norm, x)
    grad = np.zeros((1, 1, 1, 3))
    memory = np.zeros(12)
    grad_x, sums = memory.reshape(1, 2, 2, 3), memory[:3].reshape(1, 1, 1, 3)
    with pytest.raises(ValueError, match="grad_x must"):
        cuda_kernels.norm_relu_backward(
            sums, x, *norm, *vectors(3, 2, "float64"), grad_x, pool=2
        )
    with pytest.raises(ValueError, match="must not share memory"):
        cuda_kernels.norm_relu_sums(
            grad, x, *norm, norm[0], sums, sums, None, pool=2
        )
