"""The registered operators under pairwise attention."""

import numpy as np
import pytest
import torch

from san.ops.pairwise_core import window_counts
from tests.ops.definitions import attend
from tests.ops.windows import random_tensor


def op_inputs(kernel_size=3, relation=3, weights=2, value=4, size=(3, 4)):
    """Arguments of san::pairwise_core, away from the relus' corners."""
    features = random_tensor(1, 2 * relation + value, *size, seed=1)
    shapes = [
        (relation,),
        (relation,),
        (kernel_size**2, relation),
        (relation, relation),
        (weights, relation),
    ]
    tensors = [random_tensor(*s, seed=i + 2) for i, s in enumerate(shapes)]
    return (features, *tensors, kernel_size)


@pytest.mark.parametrize(("kernel_size", "size"), [(3, (3, 4)), (5, (2, 3))])
def test_gradcheck(kernel_size, size):
    inputs = op_inputs(kernel_size, size=size)
    ops = torch.ops.san
    assert torch.autograd.gradcheck(ops.pairwise_core, inputs)
    features, scale, shift = inputs[:3]
    centre = shift.detach().relu()
    assert torch.autograd.gradcheck(
        ops.pairwise_moments, (features, scale, shift, centre, kernel_size)
    )
    assert torch.autograd.gradcheck(
        ops.pairwise_difference_moments, (features, 3, kernel_size)
    )


@pytest.mark.parametrize("relation", [3, 8, 9])
@pytest.mark.parametrize(
    ("kernel_size", "size"), [(3, (4, 33)), (7, (9, 31)), (7, (4, 40))]
)
def test_gradients_equal_the_definition(relation, kernel_size, size):
    *tensors, _ = op_inputs(kernel_size, relation, 3, 9, size)
    results = []
    for op in (torch.ops.san.pairwise_core, attend):
        output = op(*tensors, kernel_size)
        seeds = torch.linspace(-1, 2, output.numel()).double()
        seeds = seeds.view(output.shape)
        results.append([output, *torch.autograd.grad(output, tensors, seeds)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("channel", [0, 4, 7], ids=["phi", "psi", "beta"])
def test_not_a_number_is_passed_on(channel, kernel_size):
    *tensors, _ = op_inputs(kernel_size, size=(4, 7))
    with torch.no_grad():
        tensors[0][0, channel, 1, 2] = torch.nan
    results = []
    for op in (torch.ops.san.pairwise_core, attend):
        output = op(*tensors, kernel_size)
        seeds = torch.ones_like(output)
        results.append([output, *torch.autograd.grad(output, tensors, seeds)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, equal_nan=True)


def registered_calls():
    features, scale, shift, table, w1, w2, kernel_size = op_inputs()
    centre = shift.detach().relu()
    mapping = (scale, shift, table, w1, w2, kernel_size)
    grad = random_tensor(1, 4, 3, 4, seed=9)
    first, second = random_tensor(9, 3), random_tensor(3, 3)
    mean, variance = random_tensor(3), random_tensor(3, seed=1)
    moments = (features, scale, shift, centre, kernel_size)
    return {
        "pairwise_core": (features, *mapping),
        "pairwise_core_recorded": (features, *mapping),
        "pairwise_core_backward": (
            grad,
            random_tensor(1, 4, 3, 4, seed=10),
            random_tensor(1, 2, 3, 4, seed=11),
            features,
            *mapping,
        ),
        "pairwise_moments": moments,
        "pairwise_moments_backward": (first, second, *moments),
        "pairwise_difference_moments": (features, 3, kernel_size),
        "pairwise_difference_moments_backward": (
            mean,
            variance,
            features,
            mean,
            kernel_size,
        ),
    }


@pytest.mark.parametrize("name", registered_calls())
def test_opcheck(name):
    arguments = registered_calls()[name]
    if name.endswith(("backward", "recorded")):  # without a derivative
        arguments = tuple(
            a.detach() if isinstance(a, torch.Tensor) else a for a in arguments
        )
    op = getattr(torch.ops.san, name).default
    results = torch.library.opcheck(op, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_refuses_a_second_derivative():
    features, *rest = op_inputs()
    output = torch.ops.san.pairwise_core(features, *rest)
    (gradient,) = torch.autograd.grad(output.sum(), features, create_graph=True)
    with pytest.raises(NotImplementedError, match="unfused"):
        gradient.sum().backward()


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_window_counts(size, kernel_size):
    reach = kernel_size // 2
    padded = np.pad(np.arange(size), reach, mode="reflect")
    expected = np.zeros((size, kernel_size))
    for i in range(size):
        for pixel in padded[i : i + kernel_size]:
            expected[i, pixel - i + reach] += 1
    counts = window_counts(size, kernel_size)
    np.testing.assert_array_equal(counts.numpy(), expected)
