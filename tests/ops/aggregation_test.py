import pytest
import torch

from san.ops import aggregation, reference
from tests.ops.windows import (
    WINDOWS,
    aggregation_inputs,
    gradients,
    random_tensor,
)

WINDOW = {"kernel_size": 3, "padding": 1}


def test_channels_share_weights_interleaved():
    image = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    weight = torch.tensor([10.0, 100]).view(1, 2, 1, 1)
    output = aggregation(image, weight, 1)
    assert output.flatten().tolist() == [10, 200, 30, 400]


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [("reflect", [[5, 4, 5], [2, 1, 2]]), ("zeros", [[0, 0, 0], [0, 1, 2]])],
)
def test_first_tap_is_the_pixel_above_and_left(padding_mode, expected):
    image = torch.tensor([[1.0, 2, 3], [4, 5, 6]])[None, None]
    weight = torch.zeros(1, 1, 9, 6)
    weight[:, :, 0] = 1
    output = aggregation(image, weight, 3, 1, 1, 1, padding_mode)
    assert output[0, 0].tolist() == expected


def test_gradients_by_hand():
    image = torch.tensor([[[[2.0, 3]]]], requires_grad=True)
    weight = torch.tensor([[[[5.0], [7]]]]).repeat_interleave(2, 2)
    weight.requires_grad_()
    # The one window of a 2x2 kernel over the two pixels, padded to 3 x 4 and
    # moved by 2, so that it lies on [[3, 2], [3, 2]] and [[3, 2], [3, 2]].
    output = aggregation(
        image, weight.expand(-1, -1, -1, 2), 2, stride=2, padding=1
    )
    assert output.flatten().tolist() == [
        3 * 5 + 2 * 5 + 3 * 7 + 2 * 7,
        3 * 5 + 2 * 5 + 3 * 7 + 2 * 7,
    ]
    output.sum().backward()
    assert image.grad.flatten().tolist() == [24, 24]
    assert weight.grad.flatten().tolist() == [6, 4, 6, 4]


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_equals_the_reference(size, window):
    inputs = aggregation_inputs(size, **window)
    torch.testing.assert_close(
        gradients(aggregation, inputs, **window),
        gradients(reference.aggregation, inputs, **window),
    )


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
def test_first_and_second_derivatives(padding_mode):
    window = {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2}
    window["padding_mode"] = padding_mode
    inputs = aggregation_inputs((4, 3), **window)

    def function(image, weight):
        return aggregation(image, weight, **window)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("needed", [0, 1])
def test_one_gradient_alone(needed):
    inputs = aggregation_inputs(**WINDOW)
    inputs[1 - needed].requires_grad_(False)

    def derivatives(function):
        """The one gradient, and the gradients of its square."""
        output = function(*inputs, **WINDOW)
        weights = random_tensor(*output.shape, seed=3)
        (grad,) = torch.autograd.grad(
            output, inputs[needed], weights, create_graph=True
        )
        return grad, *torch.autograd.grad(grad.square().sum(), weights)

    torch.testing.assert_close(
        derivatives(aggregation), derivatives(reference.aggregation)
    )


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
    changed = [change(t) for t in aggregation_inputs(**WINDOW)]
    assert not any(t.is_contiguous() for t in changed)
    dense = [t.contiguous() for t in changed]
    for got, expected in zip(
        gradients(aggregation, changed, **WINDOW),
        gradients(aggregation, dense, **WINDOW),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_channels_last_stays():
    image, weight = aggregation_inputs((6, 5), **WINDOW)
    image = image.detach().contiguous(memory_format=torch.channels_last)
    inputs = image.requires_grad_(), weight
    output, grad_image, grad_weight = gradients(aggregation, inputs, **WINDOW)
    for result in (output, grad_image):
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert not result.is_contiguous()
    assert grad_weight.is_contiguous()


@pytest.mark.parametrize(("batch", "channels"), [(0, 4), (2, 0)])
def test_zero_size(batch, channels):
    image = torch.zeros(batch, channels, 5, 7, requires_grad=True)
    weight = torch.zeros(batch, 2, 9, 35, requires_grad=True)
    output, grad_image, grad_weight = gradients(
        aggregation, (image, weight), **WINDOW
    )
    assert output.shape == grad_image.shape == (batch, channels, 5, 7)
    assert grad_weight.shape == weight.shape
    assert not grad_weight.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_accumulate_in_float32(dtype):
    inputs = aggregation_inputs(**WINDOW, dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    for got, expected in zip(
        gradients(aggregation, inputs, **WINDOW),
        gradients(reference.aggregation, exact, **WINDOW),
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
    inputs = aggregation_inputs((33, 31), **WINDOW, dtype=torch.float32)
    for first, second in zip(
        gradients(aggregation, inputs, **WINDOW),
        gradients(aggregation, inputs, **WINDOW),
        strict=True,
    ):
        assert torch.equal(first, second)


def image(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(*shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": [[1.0]]}, "input must be a torch.Tensor, got list"),
        ({"input": image(4, 5, 7)}, "input must have 4 dimensions, got shape"),
        (
            {"input": image(2, 4, 5, 7, dtype=torch.int32)},
            "input must be float32, float64, float16 or bfloat16, got torch.i",
        ),
        (
            {"input": image(2, 4, 0, 7)},
            "input must have a height and a width of at least 1, got shape",
        ),
        (
            {"padding": 0, "input": image(2, 4, 5, 2)},
            "input must be at least as large as the dilated kernel after "
            "padding, got shape \\[2, 4, 5, 2\\] with Window\\(kernel_size=3",
        ),
        ({"weight": None}, "weight must be a torch.Tensor, got NoneType"),
        ({"weight": image(2, 9, 35)}, "weight must have 4 dimensions, got sh"),
        (
            {"weight": image(2, 2, 9, 35, dtype=torch.float64)},
            "weight must have the dtype of input, torch.float32, got torch.fl",
        ),
        (
            {"weight": image(2, 2, 9, 35, device="meta")},
            "weight must be on the device of input, cpu, got meta",
        ),
        (
            {"weight": image(2, 3, 9, 35)},
            "weight must have a number of channels that divides the 4 channel",
        ),
        (
            {"weight": image(2, 0, 9, 35)},
            "weight must have a number of channels that divides .* got 0",
        ),
        (
            {"weight": image(2, 2, 9, 34)},
            "weight must have the shape .* = \\[2, 2, 9, 35\\], got \\[2, 2, ",
        ),
        ({"weight": image(1, 2, 9, 35)}, "weight must have the shape"),
        ({"weight": image(2, 2, 8, 35)}, "weight must have the shape"),
        (
            {"kernel_size": 0},
            "kernel_size must be an integer from 1 to 1073741823, got 0",
        ),
        (
            {"kernel_size": 3.0},
            "kernel_size must be an integer from 1 to 1073741823, got 3.0",
        ),
        (
            {"kernel_size": (3, 3)},
            "kernel_size must be an integer from 1 to 1073741823, got",
        ),
        (
            {"stride": 0},
            "stride must be an integer from 1 to 1073741823, got 0",
        ),
        (
            {"stride": True},
            "stride must be an integer from 1 to 1073741823, got True",
        ),
        (
            {"padding": -1},
            "padding must be an integer from 0 to 1073741823, got -1",
        ),
        ({"padding": 2**30}, "padding must be an integer from 0 to 1073741823"),
        (
            {"dilation": 0},
            "dilation must be an integer from 1 to 1073741823, got 0",
        ),
        (
            {"padding_mode": "circular"},
            "padding_mode must be one of reflect, zeros, got 'circular'",
        ),
    ],
)
def test_errors(changes, message):
    arguments = {
        "input": image(2, 4, 5, 7),
        "weight": image(2, 2, 9, 35),
        **WINDOW,
        **changes,
    }
    with pytest.raises(ValueError, match=f"^aggregation: {message}"):
        aggregation(**arguments)
