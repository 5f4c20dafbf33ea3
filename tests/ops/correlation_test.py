import numpy as np
import pytest
import torch

import cuda_kernels
from san.ops import aggregation, correlation, reference
from tests.ops.windows import WINDOWS, gradients, random_tensor

WINDOW = {"kernel_size": 3, "padding": 1}
GROUPS = [1, 2, 4]


def inputs(size=(5, 7), dtype=torch.float64, **window):
    """An image of 4 channels, and vectors for each place of the window."""
    b = random_tensor(2, 4, *size, dtype=dtype, seed=2)
    with torch.no_grad():
        taps = reference.subtraction2(b, b, **window).shape[3]
        rows = aggregation(
            b, b.new_zeros(2, 1, window["kernel_size"] ** 2, taps), **window
        )
    return random_tensor(*rows.shape, dtype=dtype, seed=1), b


def test_groups_are_interleaved():
    a = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    b = torch.tensor([10.0, 100, 1000, 10000]).view(1, 4, 1, 1)
    for num_groups, expected in (
        (1, [43210]),
        (2, [3010, 40200]),
        (4, [10, 200, 3000, 40000]),
    ):
        output = correlation(a, b, num_groups, 1)
        assert output.flatten().tolist() == expected


@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [("reflect", [15, 16, 35, 8, 5, 12]), ("zeros", [0, 0, 0, 0, 5, 12])],
)
def test_first_tap_is_the_pixel_above_and_left(padding_mode, expected):
    a = torch.tensor([[3.0, 4, 7], [4, 5, 6]])[None, None]
    b = torch.tensor([[1.0, 2, 3], [4, 5, 6]])[None, None]
    output = correlation(a, b, 1, 3, 1, 1, 1, padding_mode)
    assert output[0, 0, 0].tolist() == expected


@pytest.mark.parametrize("num_groups", GROUPS)
@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_equals_the_reference(size, window, num_groups):
    tensors = inputs(size, **window)
    torch.testing.assert_close(
        gradients(correlation, tensors, num_groups=num_groups, **window),
        gradients(
            reference.correlation, tensors, num_groups=num_groups, **window
        ),
    )


def test_is_the_gradient_of_aggregations_weight():
    a, b = inputs(**WINDOW)
    weight = random_tensor(2, 2, 9, 35, seed=3)
    output = aggregation(b, weight, **WINDOW)
    (expected,) = torch.autograd.grad(output, weight, a.detach())
    assert torch.equal(correlation(a, b, 2, **WINDOW), expected)


@pytest.mark.parametrize("needed", [0, 1])
def test_one_gradient_alone(needed):
    tensors = inputs(**WINDOW)
    both = gradients(correlation, tensors, num_groups=2, **WINDOW)
    tensors[1 - needed].requires_grad_(False)
    output = correlation(*tensors, 2, **WINDOW)
    weights = random_tensor(*output.shape, seed=3).detach().mul(4).round()
    (grad,) = torch.autograd.grad(output, tensors[needed], weights)
    assert torch.equal(grad, both[1 + needed])


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
    changed = [change(t) for t in inputs(**WINDOW)]
    assert not any(t.is_contiguous() for t in changed)
    dense = [t.contiguous() for t in changed]
    for got, expected in zip(
        gradients(correlation, changed, num_groups=2, **WINDOW),
        gradients(correlation, dense, num_groups=2, **WINDOW),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("batch", "channels"), [(0, 4), (2, 0)])
def test_zero_size(batch, channels):
    image = torch.zeros(batch, channels, 5, 7, requires_grad=True)
    output, grad_a, grad_b = gradients(
        correlation,
        (image, image.detach().requires_grad_()),
        num_groups=2,
        **WINDOW,
    )
    assert output.shape == (batch, 2, 9, 35)
    assert not output.any()
    assert grad_a.shape == grad_b.shape == image.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_accumulate_in_float32(dtype):
    tensors = inputs(**WINDOW, dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    for got, expected in zip(
        gradients(correlation, tensors, num_groups=2, **WINDOW),
        gradients(reference.correlation, exact, num_groups=2, **WINDOW),
        strict=True,
    ):
        assert got.dtype == dtype
        torch.testing.assert_close(
            got.double(),
            expected,
            rtol=1.01 * torch.finfo(dtype).eps / 2,
            atol=1e-4,
        )


def test_autocast_and_runs_equal_to_the_bit():
    a, b = inputs((33, 31), **WINDOW, dtype=torch.float32)
    first, second = (
        gradients(correlation, (a, b), num_groups=2, **WINDOW) for _ in range(2)
    )
    assert all(map(torch.equal, first, second))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = correlation(a, b, 2, **WINDOW)
    expected = correlation(a.bfloat16(), b.bfloat16(), 2, **WINDOW)
    assert torch.equal(output, expected)


def image(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(*shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": [[1.0]]}, "a must be a torch.Tensor, got list"),
        ({"b": image(4, 5, 7)}, "b must have 4 dimensions, got shape"),
        ({"a": image(2, 4, 5, 6)}, r"a must have the shape \[N, C, H_out, "),
        ({"stride": 2}, r"a must have the shape .* = \[2, 4, 3, 4\], got "),
        (
            {"a": image(2, 4, 5, 7, dtype=torch.float64)},
            "a must have the dtype of b, torch.float32, got torch.float64",
        ),
        (
            {"a": image(2, 4, 5, 7, device="meta")},
            "a must be on the device of b, cpu, got meta",
        ),
        (
            {"b": image(2, 4, 5, 7, dtype=torch.int32)},
            "b must be float32, float64, float16 or bfloat16, got torch.int32",
        ),
        ({"num_groups": 3}, "num_groups must be an integer that divides the 4"),
        ({"num_groups": 0}, "num_groups must be an integer .* got 0"),
        ({"num_groups": True}, "num_groups must be an integer .* got True"),
        ({"num_groups": torch.tensor(2.5)}, "num_groups must be an integer"),
        ({"num_groups": np.array([2])}, "num_groups must be an integer"),
        ({"num_groups": 2.0}, "num_groups must be an integer .* got 2.0"),
        ({"kernel_size": 0}, "kernel_size must be an integer from 1 to"),
        ({"padding_mode": "wrap"}, "padding_mode must be one of reflect, ze"),
    ],
)
def test_errors(changes, message):
    arguments = {
        "a": image(2, 4, 5, 7),
        "b": image(2, 4, 5, 7),
        "num_groups": 2,
        **WINDOW,
        **changes,
    }
    with pytest.raises(ValueError, match=f"^correlation: {message}"):
        correlation(**arguments)


def test_the_kernel_needs_no_weight_for_its_gradient_alone():
    grad, picture = (t.detach() for t in inputs(**WINDOW))
    weight = torch.zeros(2, 2, 9, 35, dtype=torch.float64)
    call = cuda_kernels.aggregation_backward
    call(grad, picture, None, None, weight, **WINDOW)
    torch.testing.assert_close(
        weight, reference.correlation(grad, picture, 2, **WINDOW)
    )
    for grads in ((torch.empty_like(picture), weight), (None, None)):
        with pytest.raises(ValueError, match="weight must be"):
            call(grad, picture, None, *grads, **WINDOW)
