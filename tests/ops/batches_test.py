"""Batches of aggregation, correlation and subtraction under vmap.

The oracle is san.ops.reference in plain PyTorch.
"""

import itertools

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap

from san import ops
from san.ops import reference
from tests.ops.windows import random_tensor

WINDOW = {"kernel_size": 3, "padding": 1}


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def image(*shape, seed=1):
    return random_tensor(*shape, seed=seed).detach()


# Without (None, None), where nothing is mapped.
DIMENSIONS = list(itertools.product([None, 0, 1, 4], repeat=2))[1:]


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("op", ["aggregation", "correlation", "subtraction2"])
def test_every_combination_of_mapped_dimensions(op, dims):
    tensors = [image(2, 4, 5, 7), image(2, 2, 9, 35, seed=2)]
    if op != "aggregation":
        tensors[1] = image(2, 4, 5, 7, seed=2)
    groups = {"num_groups": 2} if op == "correlation" else {}
    tensors = [
        t if dim is None else torch.stack([t, 2 * t, t.cos()], dim)
        for t, dim in zip(tensors, dims, strict=True)
    ]
    outputs = [
        vmap(
            lambda *t, m=m: getattr(m, op)(*t, **groups, **WINDOW),
            dims,
            out_dims=1,
        )(*tensors)
        for m in (ops, reference)
    ]
    assert_same(*outputs)


class Attention(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
        self.scale = torch.nn.Parameter(image(2, 1, 1))

    def forward(self, x):
        relation = self.module.subtraction(x * self.scale, **WINDOW)
        return self.module.aggregation(x, relation.softmax(2), **WINDOW)


@pytest.mark.parametrize("layout", ["row-major", "channels-last"])
def test_gradients_per_sample(layout):
    model = Attention(ops)
    x = image(3, 2, 4, 5)
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)

    def loss(parameters, sample):
        return functional_call(model, parameters, sample[None]).sin().sum()

    parameters = {"scale": model.scale.detach()}
    grads = vmap(grad(loss, (0, 1)), (None, 0))(parameters, x)
    oracle = Attention(reference)
    for i in range(len(x)):
        sample = x[i : i + 1].clone().requires_grad_()
        of_scale, of_sample = torch.autograd.grad(
            oracle(sample).sin().sum(), (oracle.scale, sample)
        )
        assert_same(grads[0]["scale"][i], of_scale)
        assert_same(grads[1][i], of_sample[0])


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4)])
def test_no_elements(shape):
    def function(x):
        weight = x.new_ones(shape[0], 1, 9, 12) * x.sum()
        return ops.aggregation(x, weight, **WINDOW)

    x = torch.zeros(shape)
    output, tangent = jvp(function, (x,), (x,))
    assert output.shape == tangent.shape == shape
    assert grad(lambda x: function(x).sum())(x).shape == shape
    assert vmap(function)(torch.stack([x, x, x])).shape == (3, *shape)
    relation = vmap(lambda x: ops.subtraction(x, **WINDOW))(x[None])
    assert relation.shape == (1, *shape[:2], 9, 12)
