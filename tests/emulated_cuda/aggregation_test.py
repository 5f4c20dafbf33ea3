"""The fast CUDA kernels of aggregation, run thread by thread."""

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


def check(size, window, batch=1, channels=4, groups=2, dtype=torch.float32):
    """Output and gradients, in one call and each alone."""
    height, width = (window.outputs(side) for side in size)
    image = (batch, channels, *size)
    weights = (batch, groups, window.kernel_size**2, height * width)
    output = (batch, channels, height, width)
    grad, x, weight = random_tensors(output, image, weights, dtype=dtype)
    assert_same_as_on_cpu("aggregation_forward", (x, weight), [output], window)
    for shapes in [(image, weights), (image, None), (None, weights)]:
        assert_same_as_on_cpu(
            "aggregation_backward", (grad, x, weight), shapes, window
        )


@pytest.mark.parametrize("size", sorted({size for size, _ in GEOMETRIES}))
def test_every_window(size):
    for other, window in GEOMETRIES:
        if other == size:
            check(size, window)


@pytest.mark.parametrize(("size", "window"), LARGE)
def test_several_tiles(size, window):
    check(size, window, batch=1, channels=16, groups=2)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("size", "kernel_size"), [((7, 5), 7), ((33, 34), 3)])
def test_every_type(size, kernel_size, dtype):
    window = Window(kernel_size, padding=kernel_size // 2)
    check(size, window, channels=8, dtype=dtype)


@pytest.mark.parametrize("members", [1, 2, 3, 8, 12, 16])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("size", "kernel_size"), [((6, 5), 7), ((8, 9), 3)])
def test_every_sharing(members, groups, size, kernel_size):
    window = Window(kernel_size, padding=kernel_size // 2)
    check(size, window, channels=members * groups, groups=groups)


# Rows that begin on 4, 2 and 1 elements; 268 are several tiles of columns.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "zeros"])
@pytest.mark.parametrize(
    ("width", "kernel_size"), [(36, 7), (38, 7), (39, 7), (268, 7), (36, 3)]
)
def test_rows_of_every_alignment(width, kernel_size, mode, dtype):
    window = Window(kernel_size, padding=kernel_size // 2, padding_mode=mode)
    check((29, width), window, channels=18, dtype=dtype)


# Outputs in rows of 4, images in others, and the other way around.
@pytest.mark.parametrize(("size", "padding"), [((37, 38), 2), ((40, 40), 4)])
def test_images_of_another_size_than_outputs(size, padding):
    check(size, Window(7, padding=padding), batch=2)


@pytest.mark.parametrize("skipped", [1, 2])
@pytest.mark.parametrize("side", [28, 32])
def test_tensors_that_begin_anywhere(skipped, side):
    image, weights = (1, 16, side, side), (1, 2, 49, side * side)
    moved = []
    for tensor in random_tensors(image, image, weights, dtype=torch.bfloat16):
        memory = torch.empty(tensor.numel() + skipped, dtype=tensor.dtype)
        moved.append(memory[skipped:].view(tensor.shape).copy_(tensor))
    window = Window(7, padding=3)
    assert_same_as_on_cpu("aggregation_forward", moved[1:], [image], window)
    assert_same_as_on_cpu(
        "aggregation_backward", moved, [image, weights], window
    )


@pytest.mark.parametrize("size", [(7, 7), (3, 10)])
def test_blocks_of_several_units(size):
    check(size, Window(7, padding=3), batch=3, channels=48, groups=6)


# One unit and more than a block has, the last one with fewer channels.
@pytest.mark.parametrize("sharing", [(3, 1), (36, 3)])
@pytest.mark.parametrize(("size", "window"), SMALL_OUTPUTS)
def test_small_images(size, window, sharing):
    channels, groups = sharing
    batch = 3 if size < (20, 20) else 1
    check(size, window, batch=batch, channels=channels, groups=groups)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("side", [7, 14])
def test_small_images_of_every_type(side, dtype):
    check((side, side), Window(7, padding=3), channels=16, dtype=dtype)


def test_small_images_in_little_shared_memory(monkeypatch):
    monkeypatch.setenv("EMULATED_CUDA_SHARED_BYTES", "90000")
    check((7, 7), Window(7, padding=3), batch=2)


def test_without_images_or_channels():
    window = Window(3, padding=1)
    check((5, 4), window, batch=0)
    check((5, 4), window, channels=0)


def test_what_does_not_fit_into_tiles():
    check((6, 5), Window(2, 25, 40, 30), channels=2)
    check((2, 3), Window(3, padding=2000, stride=997), channels=2)


# Few outputs a thread, and several.
@pytest.mark.parametrize("groups", [1, 4])
def test_not_a_number_stays_where_it_is(groups):
    window = Window(7, padding=3)
    image, weights = (1, 8 * groups, 24, 23), (1, groups, 49, 24 * 23)
    x, weight = random_tensors(image, weights, dtype=torch.float32)
    channel = 3 * groups  # of the first weight channel
    x[0, channel, 12, 12] = torch.inf
    (output,) = results(
        kernels, "aggregation_forward", (x, weight), [image], window
    )
    grads = (x, torch.zeros_like(x), weight)
    grad_input, grad_weight = results(
        kernels, "aggregation_backward", grads, [image, weights], window
    )
    for result in (output, grad_input):
        wrong = ~result.isfinite()
        assert wrong[0, channel, 9:16, 9:16].all()
        assert wrong.sum() == 49
    wrong = ~grad_weight.isfinite()
    assert wrong[0, 0, :, 12 * 23 + 12].all()
    assert wrong.sum() == 49


def test_channels_last_is_left_to_the_simple_kernels():
    image, weight, grad = random_tensors(
        (2, 6, 7, 5), (2, 3, 9, 35), (2, 6, 7, 5)
    )
    image, grad = (
        t.contiguous(memory_format=torch.channels_last) for t in (image, grad)
    )
    window = Window(3, padding=1).options
    found = []
    for module in (kernels, cuda_kernels):
        output, grad_image = torch.empty_like(image), torch.empty_like(image)
        grad_weight = torch.empty_like(weight)
        module.aggregation_forward(image, weight, output, **window)
        module.aggregation_backward(
            grad, image, weight, grad_image, grad_weight, **window
        )
        found.append((output, grad_image, grad_weight))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
