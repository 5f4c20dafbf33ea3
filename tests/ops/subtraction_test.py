import pytest
import torch

from san.ops import reference, subtraction, subtraction2
from tests.ops.windows import (
    WINDOWS,
    gradients,
    subtraction2_inputs,
)

WINDOW = {"kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [
        # Taps of the row [1, 2, 3]: each differs from b by column only.
        ("reflect", [[8, 19, 28], [9, 18, 27], [8, 17, 28]]),
        ("zeros", [[10, 19, 28], [9, 18, 27], [8, 17, 30]]),
    ],
)
def test_by_hand(padding_mode, expected):
    a = torch.tensor([[[[10.0, 20, 30]]]], requires_grad=True)
    b = torch.tensor([[[[1.0, 2, 3]]]], requires_grad=True)
    output = subtraction2(a, b, **WINDOW, padding_mode=padding_mode)
    assert output[0, 0, 3:6].tolist() == expected
    output[0, 0, 3].sum().backward()
    assert a.grad.flatten().tolist() == [1, 1, 1]
    repeats = -1.0 if padding_mode == "reflect" else 0.0
    assert b.grad.flatten().tolist() == [-1, -1 + repeats, 0]


def test_centre_of_an_even_window_is_up_and_left():
    a = torch.tensor([[[[1.0, 2], [3, 4]]]])
    output = subtraction2(a, torch.zeros_like(a), 2)
    assert output.flatten().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_subtraction2_equals_the_reference(size, window):
    inputs = subtraction2_inputs(size)
    torch.testing.assert_close(
        gradients(subtraction2, inputs, **window),
        gradients(reference.subtraction2, inputs, **window),
    )


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_subtraction_equals_the_reference(size, window):
    inputs = subtraction2_inputs(size)[:1]
    torch.testing.assert_close(
        gradients(subtraction, inputs, **window),
        gradients(reference.subtraction, inputs, **window),
    )


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("op", [subtraction, subtraction2])
def test_first_and_second_derivatives(op, padding_mode):
    num_inputs = 1 if op is subtraction else 2
    inputs = subtraction2_inputs((4, 3))[:num_inputs]

    def function(*images):
        # Squared, so that the second derivative is not zero.
        return op(*images, 3, 2, 2, 2, padding_mode).square()

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("needed", [0, 1])
def test_one_gradient_alone(needed):
    inputs = subtraction2_inputs()
    _, *both = gradients(subtraction2, inputs, **WINDOW)
    inputs[1 - needed].requires_grad_(False)
    _, alone = gradients(
        lambda *_: subtraction2(*inputs, **WINDOW), inputs[needed : needed + 1]
    )
    assert torch.equal(alone, both[needed])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: torch.stack([t, -t], dim=4)[..., 0],
        lambda t: t[:, :, :, :1].expand_as(t),
    ],
    ids=["channels_last", "transposed", "strided", "expanded"],
)
def test_any_strides(change):
    changed = [change(t) for t in subtraction2_inputs()]
    assert not any(t.is_contiguous() for t in changed)
    dense = [t.contiguous() for t in changed]
    for got, expected in zip(
        gradients(subtraction2, changed, **WINDOW),
        gradients(subtraction2, dense, **WINDOW),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_channels_last_stays():
    images = [
        t.detach().contiguous(memory_format=torch.channels_last)
        for t in subtraction2_inputs((6, 5))
    ]
    inputs = [image.requires_grad_() for image in images]
    output, *grads = gradients(subtraction2, inputs, **WINDOW)
    assert output.is_contiguous()
    for grad in grads:
        assert grad.is_contiguous(memory_format=torch.channels_last)
        assert not grad.is_contiguous()


@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)])
def test_zero_size(batch, channels):
    images = [
        torch.zeros(batch, channels, 5, 7, requires_grad=True) for _ in range(2)
    ]
    output, grad_a, grad_b = gradients(subtraction2, images, **WINDOW)
    assert output.shape == (batch, channels, 9, 35)
    assert grad_a.shape == grad_b.shape == (batch, channels, 5, 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_accumulate_in_float32(dtype):
    inputs = subtraction2_inputs(dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    for got, expected in zip(
        gradients(subtraction2, inputs, **WINDOW),
        gradients(reference.subtraction2, exact, **WINDOW),
        strict=True,
    ):
        assert got.dtype == dtype
        # One rounding of the result, and nothing else to speak of.
        torch.testing.assert_close(
            got.double(),
            expected,
            rtol=1.01 * torch.finfo(dtype).eps / 2,
            atol=1e-4,
        )


def test_two_runs_are_equal_to_the_bit():
    inputs = subtraction2_inputs((33, 31), dtype=torch.float32)
    for first, second in zip(
        gradients(subtraction2, inputs, **WINDOW),
        gradients(subtraction2, inputs, **WINDOW),
        strict=True,
    ):
        assert torch.equal(first, second)


def image(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(*shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": 1.0}, "a must be a torch.Tensor, got float"),
        ({"a": image(3, 5, 7)}, "a must have 4 dimensions, got shape"),
        (
            {"a": image(2, 3, 5, 7, dtype=torch.int64)},
            "a must be float32, float64, float16 or bfloat16, got torch.int64",
        ),
        (
            {"a": image(2, 3, 5, 0)},
            "a must have a height and a width of at least 1, got shape",
        ),
        (
            {"padding": 0, "a": image(2, 3, 2, 7)},
            "a must be at least as large as the dilated kernel after padding,",
        ),
        ({"b": None}, "b must be a torch.Tensor, got NoneType"),
        (
            {"b": image(2, 3, 5, 7, dtype=torch.float16)},
            "b must have the dtype of a, torch.float32, got torch.float16",
        ),
        (
            {"b": image(2, 3, 5, 7, device="meta")},
            "b must be on the device of a, cpu, got meta",
        ),
        (
            {"b": image(2, 3, 5, 6)},
            "b must have the shape of a, \\[2, 3, 5, 7\\], got \\[2, 3, 5, 6",
        ),
        (
            {"kernel_size": -3},
            "kernel_size must be an integer from 1 to 1073741823, got -3",
        ),
        (
            {"stride": 1.5},
            "stride must be an integer from 1 to 1073741823, got 1.5",
        ),
        (
            {"padding": "same"},
            "padding must be an integer from 0 to 1073741823, got 'same'",
        ),
        (
            {"dilation": None},
            "dilation must be an integer from 1 to 1073741823, got None",
        ),
        (
            {"padding_mode": 0},
            "padding_mode must be one of reflect, zeros, got 0",
        ),
    ],
)
def test_errors(changes, message):
    arguments = {
        "a": image(2, 3, 5, 7),
        "b": image(2, 3, 5, 7),
        **WINDOW,
        **changes,
    }
    with pytest.raises(ValueError, match=f"^subtraction2: {message}"):
        subtraction2(**arguments)


def test_errors_of_subtraction_name_its_own_argument():
    with pytest.raises(ValueError, match=r"^subtraction: x must have 4 dim"):
        subtraction(image(5, 7), **WINDOW)
