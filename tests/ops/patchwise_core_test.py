"""The registered operators under patchwise attention."""

import pytest
import torch

import san.ops  # noqa: F401  registers the operators
from tests.ops.windows import random_tensor


def hidden_inputs(size=(4, 5)):
    """phi, psi, scale, shift, weight and kernel_size."""
    shapes = [(2, 2, *size), (2, 2, *size), (1, 20, 1, 1), (1, 20, 1, 1)]
    tensors = [
        random_tensor(*shape, seed=seed)
        for seed, shape in enumerate([*shapes, (3, 20, 1, 1)])
    ]
    return *tensors, 3


def core_inputs(size=(4, 5)):
    """hidden, value, weight and bias."""
    return (
        random_tensor(2, 2, *size, seed=1),
        random_tensor(2, 4, *size, seed=2),
        random_tensor(2, 3, 3, 2, seed=3),
        random_tensor(1, 2, 3, 3, seed=4),
    )


OPS = [("patchwise_hidden", hidden_inputs), ("patchwise_core", core_inputs)]


@pytest.mark.parametrize("size", [(4, 5), (1, 2)])
@pytest.mark.parametrize(("name", "inputs"), OPS)
def test_derivatives(name, inputs, size):
    op = getattr(torch.ops.san, name)
    assert torch.autograd.gradcheck(op, inputs(size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "inputs"), OPS)
def test_opcheck(name, inputs, dtype):
    tensors = tuple(
        t if isinstance(t, int) else t.detach().to(dtype).requires_grad_()
        for t in inputs()
    )
    op = getattr(torch.ops.san, name).default
    results = torch.library.opcheck(op, tensors)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize(("name", "inputs"), OPS)
def test_one_gradient_alone(name, inputs):
    op = getattr(torch.ops.san, name)
    *tensors, last = inputs()
    rest = (last,) if isinstance(last, int) else ()
    tensors = tensors if rest else [*tensors, last]
    output = op(*tensors, *rest)
    seeds = output.detach().cos()
    all_grads = torch.autograd.grad(output, tensors, seeds)
    for needed, expected in enumerate(all_grads):
        alone = [t.detach() for t in tensors]
        alone[needed].requires_grad_()
        (grad,) = torch.autograd.grad(op(*alone, *rest), alone[needed], seeds)
        assert torch.equal(grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "inputs", "images"),
    [
        ("patchwise_hidden", hidden_inputs, 2),
        ("patchwise_core", core_inputs, 1),
    ],
)
def test_half_types_are_computed_in_float32(name, inputs, images, dtype):
    """Images and their gradients are rounded, once."""
    op = getattr(torch.ops.san, name)
    last = 1 if name == "patchwise_core" else 0
    tensors = [
        t if isinstance(t, int) else t.detach().float() for t in inputs((9, 7))
    ]
    for i in range(last, last + images):
        tensors[i] = tensors[i].to(dtype)

    def results(tensors):
        leaves = [t.requires_grad_() for t in tensors if not isinstance(t, int)]
        output = op(*tensors)
        seeds = torch.linspace(-1, 1, output.numel()).view_as(output)
        return output, *torch.autograd.grad(
            output, leaves, seeds.to(dtype).to(output.dtype)
        )

    exact = results([t if isinstance(t, int) else t.float() for t in tensors])
    for got, wanted in zip(results(tensors), exact, strict=True):
        assert torch.equal(got, wanted.to(got.dtype))


@pytest.mark.parametrize(
    ("size", "relation", "groups"),
    [((19, 23), 8, 4), ((7, 7), 8, 4), ((60, 58), 8, 4), ((9, 13), 48, 32)],
)
def test_same_bits_for_every_number_of_threads(size, relation, groups):
    def tensor(*shape, seed=0):
        return random_tensor(*shape, dtype=torch.float32, seed=seed)

    hidden = (
        tensor(5, relation, *size),
        tensor(5, relation, *size, seed=1),
        tensor(1, 50 * relation, 1, 1),
        tensor(1, 50 * relation, 1, 1, seed=1),
        tensor(groups, 50 * relation, 1, 1),
    )
    core = (
        tensor(5, groups, *size),
        tensor(5, 64, *size),
        tensor(groups, 7, 7, groups),
        tensor(1, groups, 7, 7),
    )
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            first = torch.ops.san.patchwise_hidden(*hidden, 7)
            second = torch.ops.san.patchwise_core(*core)
            runs.append(
                [
                    first,
                    second,
                    *torch.autograd.grad(first, hidden, first.detach()),
                    *torch.autograd.grad(second, core, second.detach()),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for got, expected in zip(run, runs[0], strict=True):
            assert torch.equal(got, expected)
