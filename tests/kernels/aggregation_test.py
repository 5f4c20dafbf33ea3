import numpy as np
import pytest

import cuda_kernels
from tests.kernels import numpy_reference
from tests.kernels.cases import (
    PATHS,
    PLAIN,
    SIZES,
    TOLERANCE,
    WINDOWS,
    fits,
    random_arrays,
    use_path,
)
from tests.kernels.numpy_reference import Window


def arrays(size, window, batch=1, channels=3, groups=1, dtype="float64"):
    """Returns grad_output, input and weight."""
    height, width = (window.outputs(side) for side in size)
    return random_arrays(
        (batch, channels, height, width),
        (batch, channels, *size),
        (batch, groups, window.kernel_size**2, height * width),
        dtype=dtype,
    )


def forward(input, weight, window, **path):
    height, width = (window.outputs(side) for side in input.shape[2:])
    output = np.full((*input.shape[:2], height, width), np.nan, input.dtype)
    cuda_kernels.aggregation_forward(
        input, weight, output, **path, **window.options
    )
    return output


def backward(grad_output, input, weight, window, **path):
    grads = np.full_like(input, np.nan), np.full_like(weight, np.nan)
    cuda_kernels.aggregation_backward(
        grad_output, input, weight, *grads, **path, **window.options
    )
    return grads


def everything(grad_output, input, weight, window, **path):
    return (
        forward(input, weight, window, **path),
        *backward(grad_output, input, weight, window, **path),
    )


def expected(grad_output, input, weight, window):
    return (
        numpy_reference.aggregation(input, weight, window),
        *numpy_reference.aggregation_gradients(
            grad_output, input, weight, window
        ),
    )


def assert_close(found, wanted, tolerance=1e-12, note=""):
    for one, other in zip(found, wanted, strict=True):
        scale = max(1.0, np.abs(other).max(initial=0))
        np.testing.assert_allclose(
            one.astype("float64"),
            other,
            rtol=0,
            atol=tolerance * scale,
            err_msg=str(note),
        )


@pytest.mark.parametrize("path", PATHS)
def test_by_hand(path):
    input = np.array([[[[1.0, 2, 3], [4, 5, 6]]]])
    weight = np.zeros((1, 1, 9, 6))
    weight[0, 0, 0] = 10  # the pixel above and left
    weight[0, 0, 5] = 1  # the pixel to the right
    output, grad_input, grad_weight = everything(
        np.ones((1, 1, 2, 3)), input, weight, PLAIN, **use_path(path)
    )
    assert output[0, 0].tolist() == [[52, 43, 52], [25, 16, 25]]
    assert grad_input[0, 0].tolist() == [[10, 22, 1], [10, 22, 1]]
    assert grad_weight[0, 0, 0].tolist() == [5, 4, 5, 2, 1, 2]
    assert grad_weight[0, 0, 5].tolist() == [2, 3, 2, 5, 6, 5]


@pytest.mark.parametrize("path", PATHS)
def test_channels_share_weights_interleaved(path):
    input = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    weight = np.array([10.0, 100]).reshape(1, 2, 1, 1)
    output = forward(input, weight, Window(1), **use_path(path))
    assert output.ravel().tolist() == [10, 200, 30, 400]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
def test_every_window_equals_numpy(size, path):
    for window in WINDOWS:
        if fits(window, size):
            inputs = arrays(size, window)
            found = everything(*inputs, window, **use_path(path))
            assert_close(found, expected(*inputs, window), note=window)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("batch", "channels", "groups"), [(2, 6, 2), (1, 19, 1), (3, 24, 3)]
)
def test_every_sharing_equals_numpy(batch, channels, groups, path):
    window = Window(3, padding=2)
    inputs = arrays((5, 9), window, batch, channels, groups)
    found = everything(*inputs, window, **use_path(path))
    assert_close(found, expected(*inputs, window))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (18, 37)])
def test_narrow_types_round_only_once(size, dtype, path):
    window = Window(7, padding=3)
    inputs = arrays(size, window, 2, 20, 2, dtype)
    found = everything(*inputs, window, **use_path(path))
    wide = expected(*(array.astype("float64") for array in inputs), window)
    assert [array.dtype for array in found] == [dtype] * 3
    assert_close(found, wide, TOLERANCE[dtype])


@pytest.mark.parametrize("path", PATHS)
def test_one_gradient_alone_leaves_nothing_else(path):
    inputs = arrays((5, 6), PLAIN)
    both = backward(*inputs, PLAIN, **use_path(path))
    for alone in ([True, False], [False, True]):
        grads = [
            np.full_like(grad, np.nan) if wanted else None
            for grad, wanted in zip(both, alone, strict=True)
        ]
        cuda_kernels.aggregation_backward(
            *inputs, *grads, **use_path(path), **PLAIN.options
        )
        assert np.array_equal(grads[alone.index(True)], both[alone.index(True)])


@pytest.mark.parametrize("path", PATHS)
def test_padding_and_stride_far_beyond_the_image(path):
    far = 2**20
    window = Window(2, stride=far, padding=far, dilation=far - 1)
    inputs = grad_output, input, weight = arrays((1, 4), window)
    assert grad_output.shape == (1, 3, 2, 2)
    # Every row shows the only one; the columns, as numpy pads them.
    columns = np.pad(np.arange(4), far, mode="reflect")
    output, grad_weight = np.zeros((1, 3, 2, 2)), np.zeros((1, 1, 4, 4))
    grad_input = np.zeros((1, 3, 1, 4))
    for tap, p in np.ndindex(4, 4):
        column = columns[p % 2 * far + tap % 2 * (far - 1)]
        seen, w = input[0, :, 0, column], weight[0, 0, tap, p]
        grad = grad_output[0, :, p // 2, p % 2]
        output[0, :, p // 2, p % 2] += w * seen
        grad_weight[0, 0, tap, p] += grad @ seen
        grad_input[0, :, 0, column] += w * grad
    found = everything(*inputs, window, **use_path(path))
    assert_close(found, (output, grad_input, grad_weight))


@pytest.mark.parametrize("path", PATHS)
def test_no_batch_and_no_channels(path):
    options = use_path(path)
    for batch, channels in ((0, 4), (2, 0)):
        inputs = arrays((3, 4), PLAIN, batch, channels, 2)
        output, grad_input, grad_weight = everything(*inputs, PLAIN, **options)
        assert output.size == grad_input.size == 0
        assert not grad_weight.any()


def test_not_a_number_stays_where_it_is():
    _, input, weight = arrays((8, 40), PLAIN, channels=8)
    input[0, 3, 4, 20] = np.nan
    bad = np.isnan(forward(input, weight, PLAIN))
    where = np.argwhere(bad)
    assert where.min(axis=0).tolist() == [0, 3, 3, 19]
    assert where.max(axis=0).tolist() == [0, 3, 5, 21]
