"""The fast CUDA kernels of subtraction2, run thread by thread."""

import pytest
import torch

import cuda_kernels
from tests.emulated_cuda import kernels
from tests.emulated_cuda.comparison import (
    GEOMETRIES,
    LARGE,
    SMALL_OUTPUTS,
    TOLERANCES,
    assert_same_as_on_cpu,
    random_tensors,
    results,
)
from tests.kernels.numpy_reference import Window


def check(size, window, batch=1, channels=3, dtype=torch.float32):
    """Output and gradients, in one call and each alone."""
    places = window.outputs(size[0]) * window.outputs(size[1])
    image = (batch, channels, *size)
    output = (batch, channels, window.kernel_size**2, places)
    a, b, grad = random_tensors(image, image, output, dtype=dtype)
    assert_same_as_on_cpu("subtraction2_forward", (a, b), [output], window)
    for shapes in [(image, image), (image, None), (None, image)]:
        assert_same_as_on_cpu("subtraction2_backward", (grad,), shapes, window)


@pytest.mark.parametrize("size", sorted({size for size, _ in GEOMETRIES}))
def test_every_window(size):
    for other, window in GEOMETRIES:
        if other == size:
            check(size, window)


@pytest.mark.parametrize(("size", "window"), LARGE)
def test_several_tiles(size, window):
    check(size, window, channels=2)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("size", "kernel_size"), [((7, 5), 7), ((33, 34), 3)])
def test_every_type(size, kernel_size, dtype):
    check(size, Window(kernel_size, padding=kernel_size // 2), dtype=dtype)


@pytest.mark.parametrize("size", [(7, 7), (3, 10)])
def test_blocks_of_several_planes(size):
    check(size, Window(7, padding=3), batch=3, channels=7)


# One plane and more than a block has.
@pytest.mark.parametrize("channels", [1, 13])
@pytest.mark.parametrize(("size", "window"), SMALL_OUTPUTS)
def test_small_images(size, window, channels):
    check(size, window, batch=3, channels=channels)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("side", [7, 14])
def test_small_images_of_every_type(side, dtype):
    check((side, side), Window(7, padding=3), dtype=dtype)


# Rows that begin on 4, 2 and 1 elements, in one chunk of columns and in two,
# the last of a lane; bands of 7 rows, the last of one.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("width", [28, 132, 14, 66, 33])
def test_rows_of_every_alignment(width, kernel_size, dtype):
    window = Window(kernel_size, padding=kernel_size // 2)
    check((8, width), window, batch=2, dtype=dtype)


@pytest.mark.parametrize("skipped", [1, 2])
def test_gradients_that_begin_anywhere(skipped):
    (memory,) = random_tensors((2 * 49 * 112 + skipped,), dtype=torch.bfloat16)
    grad, image = memory[skipped:].view(1, 2, 49, 112), (1, 2, 4, 28)
    assert_same_as_on_cpu(
        "subtraction2_backward", (grad,), [image, image], Window(7, padding=3)
    )


def test_without_images_or_channels():
    window = Window(3, padding=1)
    check((5, 4), window, batch=0)
    check((5, 4), window, channels=0)


def test_what_does_not_fit_into_tiles():
    check((6, 5), Window(2, 25, 40, 30))
    check((2, 3), Window(3, padding=2000, stride=997))


def test_not_a_number_stays_where_it_is():
    window = Window(7, padding=3)
    grad = torch.ones(1, 1, 49, 552)
    grad[0, 0, 24 + 7, 12 * 23 + 12] = torch.nan
    image = (1, 1, 24, 23)
    grad_a, grad_b = results(
        kernels, "subtraction2_backward", (grad,), [image, image], window
    )
    assert grad_a.isnan().nonzero().tolist() == [[0, 0, 12, 12]]
    assert grad_b.isnan().nonzero().tolist() == [[0, 0, 13, 12]]


def test_channels_last_is_left_to_the_simple_kernels():
    a, b = (
        t.contiguous(memory_format=torch.channels_last)
        for t in random_tensors((2, 6, 7, 5), (2, 6, 7, 5))
    )
    (grad,) = random_tensors((2, 6, 9, 35))
    window = Window(3, padding=1).options
    found = []
    for module in (kernels, cuda_kernels):
        output = torch.empty_like(grad)
        grads = torch.empty_like(a), torch.empty_like(b)
        module.subtraction2_forward(a, b, output, **window)
        module.subtraction2_backward(grad, *grads, **window)
        found.append((output, *grads))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
