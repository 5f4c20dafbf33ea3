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


def arrays(size, window, batch=1, channels=2, dtype="float64"):
    """Returns a, b and grad_output."""
    height, width = (window.outputs(side) for side in size)
    shape = (batch, channels, *size)
    taps = (batch, channels, window.kernel_size**2, height * width)
    return random_arrays(shape, shape, taps, dtype=dtype)


def everything(a, b, grad_output, window, **path):
    found = [np.full_like(like, np.nan) for like in (grad_output, a, b)]
    options = {**path, **window.options}
    cuda_kernels.subtraction2_forward(a, b, found[0], **options)
    cuda_kernels.subtraction2_backward(grad_output, *found[1:], **options)
    return found


def expected(a, b, grad_output, window):
    return (
        numpy_reference.subtraction2(a, b, window),
        *numpy_reference.subtraction2_gradients(grad_output, a.shape, window),
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
    a = np.array([[[[10.0, 20, 30], [40, 50, 60]]]])
    b = np.array([[[[1.0, 2, 3], [4, 5, 6]]]])
    grad_output = np.zeros((1, 1, 9, 6))
    grad_output[0, 0, 0] = [1, 2, 3, 4, 5, 6]
    output, grad_a, grad_b = everything(
        a, b, grad_output, PLAIN, **use_path(path)
    )
    assert output[0, 0, 0].tolist() == [5, 16, 25, 38, 49, 58]
    assert output[0, 0, 4].tolist() == [9, 18, 27, 36, 45, 54]
    assert grad_a[0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    # Tap 0 shows 5 4 5 and 2 1 2.
    assert grad_b[0, 0].tolist() == [[-5, -10, 0], [-2, -4, 0]]


@pytest.mark.parametrize("path", PATHS)
def test_centre_of_an_even_window_and_in_the_padding(path):
    a = np.array([[[[1.0, 2, 4]]]])
    b = np.zeros_like(a)
    for mode, centres in (("reflect", [2, 1, 2, 4]), ("zeros", [0, 1, 2, 4])):
        window = Window(2, padding=1, padding_mode=mode)
        grad_output = np.ones((1, 1, 4, 8))
        found = everything(a, b, grad_output, window, **use_path(path))
        # The first row of windows has its centres in the padding above.
        above = centres if mode == "reflect" else [0] * 4
        assert found[0][0, 0, 0].tolist() == above + centres


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
def test_every_window_equals_numpy(size, path):
    for window in WINDOWS:
        if fits(window, size):
            inputs = arrays(size, window)
            found = everything(*inputs, window, **use_path(path))
            assert_close(found, expected(*inputs, window), note=window)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (18, 37)])
def test_narrow_types_round_only_once(size, dtype, path):
    window = Window(7, padding=3)
    inputs = arrays(size, window, 2, 3, dtype)
    found = everything(*inputs, window, **use_path(path))
    wide = expected(*(array.astype("float64") for array in inputs), window)
    assert [array.dtype for array in found] == [dtype] * 3
    assert_close(found, wide, TOLERANCE[dtype])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_outputs_larger_than_a_cache(dtype, path):
    """They are written past it, from any element on."""
    window = Window(7, padding=3)
    side = {"float64": 42, "float32": 65, "float16": 97}[dtype]
    a, b = random_arrays(*[(1, 56, side, side - 2)] * 2, dtype=dtype)
    shape = (1, 56, 49, a[0, 0].size)
    outputs = []
    for options in ({"implementation": "simple"}, use_path(path)):
        memory = np.full(a[0].size * 49 + 1, np.nan, dtype)
        assert memory.nbytes > 32 * 2**20
        outputs.append(memory[1:].reshape(shape))
        cuda_kernels.subtraction2_forward(
            a, b, outputs[-1], **options, **window.options
        )
        assert np.isnan(memory[0])
    assert np.array_equal(*outputs)


@pytest.mark.parametrize("path", PATHS)
def test_one_gradient_alone_leaves_nothing_else(path):
    a, b, grad_output = arrays((5, 6), PLAIN)
    options = {**use_path(path), **PLAIN.options}
    both = everything(a, b, grad_output, PLAIN, **use_path(path))[1:]
    for wanted in (0, 1):
        grads = [None, None]
        grads[wanted] = np.full_like(a, np.nan)
        cuda_kernels.subtraction2_backward(grad_output, *grads, **options)
        assert np.array_equal(grads[wanted], both[wanted])
    cuda_kernels.subtraction2_backward(grad_output, None, None, **options)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("batch", "channels"), [(0, 4), (2, 0)])
def test_no_batch_and_no_channels(batch, channels, path):
    inputs = arrays((3, 4), PLAIN, batch, channels)
    found = everything(*inputs, PLAIN, **use_path(path))
    assert [array.size for array in found] == [0, 0, 0]
