"""Images in channels-last give the bits that they give in row-major order."""

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.cases import (
    PATHS,
    PLAIN,
    SIZES,
    WINDOWS,
    channels_last,
    fits,
    random_arrays,
    use_path,
)
from tests.kernels.numpy_reference import Window


def empty_like(image, size=None):
    """Without values, in the layout of the image; row-major if it is both."""
    shape = (*image.shape[:2], *(size or image.shape[2:]))
    empty = np.full(shape, np.nan, image.dtype)
    return empty if image.flags.c_contiguous else channels_last(empty)


def aggregation(size, window, batch, channels, groups, dtype, order, **path):
    """The output and both gradients."""
    outputs = [window.outputs(side) for side in size]
    image, grad, weight = random_arrays(
        (batch, channels, *size),
        (batch, channels, *outputs),
        (batch, groups, window.kernel_size**2, np.prod(outputs)),
        dtype=dtype,
    )
    image = order(image)
    if not image.flags.c_contiguous:
        grad = order(grad)
    options = {**path, **window.options}
    output, grad_image = empty_like(image, outputs), empty_like(image)
    grad_weight = np.full_like(weight, np.nan)
    cuda_kernels.aggregation_forward(image, weight, output, **options)
    cuda_kernels.aggregation_backward(
        grad, image, weight, grad_image, grad_weight, **options
    )
    return output, grad_image, grad_weight


def subtraction2(size, window, batch, channels, dtype, order, **path):
    """The output and both gradients."""
    outputs = np.prod([window.outputs(side) for side in size])
    taps = (batch, channels, window.kernel_size**2, outputs)
    a, b, grad = random_arrays(
        *[(batch, channels, *size)] * 2, taps, dtype=dtype
    )
    a, b = order(a), order(b)
    options = {**path, **window.options}
    output, grad_a, grad_b = (empty_like(x) for x in (grad, a, b))
    cuda_kernels.subtraction2_forward(a, b, output, **options)
    cuda_kernels.subtraction2_backward(grad, grad_a, grad_b, **options)
    return output, grad_a, grad_b


def assert_equal_in_both(op, *arguments, **path):
    row_major = op(*arguments, np.ascontiguousarray, **path)
    last = op(*arguments, channels_last, **path)
    for one, other in zip(row_major, last, strict=True):
        assert not np.isnan(one).any()
        assert np.array_equal(one, other), arguments


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
def test_every_window(size, path):
    for window in WINDOWS:
        if fits(window, size):
            assert_equal_in_both(
                aggregation, size, window, 1, 6, 2, "float64", **use_path(path)
            )
            assert_equal_in_both(
                subtraction2, size, window, 1, 3, "float64", **use_path(path)
            )


# Fewer groups than a cache line has channels, more, many more, one.
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 2), (40, 20), (66, 33), (19, 1), (17, 17)]
)
def test_every_sharing(channels, groups, dtype, path):
    sizes = (18, 21), Window(7, padding=3), 2
    assert_equal_in_both(
        aggregation, *sizes, channels, groups, dtype, **use_path(path)
    )
    assert_equal_in_both(
        subtraction2, *sizes, channels, dtype, **use_path(path)
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "window",
    [
        Window(3, stride=2, padding=2, padding_mode="zeros"),
        Window(5, padding=4, dilation=2),
        Window(3, stride=3, padding=1, dilation=3),
    ],
)
def test_blocks_of_channels_in_rare_windows(window, path):
    sizes = (20, 23), window, 2
    assert_equal_in_both(
        aggregation, *sizes, 66, 33, "float32", **use_path(path)
    )
    assert_equal_in_both(subtraction2, *sizes, 35, "float16", **use_path(path))


def test_a_large_image_is_not_left_to_the_simple_kernels():
    """Those sum in another order, which their bits show."""
    size, window = (525, 513), Window(2)
    image, weight = random_arrays(
        (1, 128, *size), (1, 16, 4, 524 * 512), dtype="float32"
    )
    found = []
    for options in ({}, {"implementation": "simple"}):
        last = channels_last(image)
        found.append(empty_like(last, (524, 512)))
        cuda_kernels.aggregation_forward(
            last, weight, found[-1], **options, **window.options
        )
    fast, simple = found
    assert np.allclose(fast, simple, rtol=0, atol=1e-4)
    assert not np.array_equal(fast, simple)


def test_planes_that_share_scratch_in_smaller_blocks():
    """16 images of 300 x 260 are more than subtraction2 takes at a time."""
    assert_equal_in_both(
        subtraction2, (300, 260), Window(3, padding=1), 1, 17, "float32"
    )


def test_too_large_for_scratch():
    """Then the simple implementation computes."""
    window = Window(2, stride=2**25, padding=2**25, dilation=2**25 - 1)
    sizes = (2, 5), window, 1, 4
    assert_equal_in_both(aggregation, *sizes, 2, "float64")
    assert_equal_in_both(subtraction2, *sizes, "float64")


def test_errors():
    image, weight = np.zeros((1, 2, 4, 5)), np.zeros((1, 2, 9, 20))
    last = channels_last(image)
    message = (
        "output must have the layout of input, channels-last, got row-major"
    )
    with pytest.raises(ValueError, match=f"^aggregation_forward: {message}$"):
        cuda_kernels.aggregation_forward(
            last, weight, image.copy(), **PLAIN.options
        )
    with pytest.raises(ValueError, match=r"b must have the layout of a, row-m"):
        cuda_kernels.subtraction2_forward(image, last, weight, **PLAIN.options)
    with pytest.raises(ValueError, match=r"weight must be dense and row-major"):
        cuda_kernels.aggregation_forward(
            last, channels_last(weight), last.copy("K"), **PLAIN.options
        )
    with pytest.raises(ValueError, match=r"input must be dense, in row-major"):
        cuda_kernels.aggregation_forward(
            np.zeros((1, 2, 4, 10))[..., ::2], weight, image, **PLAIN.options
        )
