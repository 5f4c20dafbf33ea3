"""Norms with ReLUs and what follows them: inputs, torch's layers, a step."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

# N, C, H, W: whole and partial vectors, odd sizes, single rows and pixels.
SHAPES = [
    (1, 1, 1, 3),
    (2, 5, 3, 3),
    (3, 16, 2, 4),
    (2, 40, 7, 5),
    (1, 33, 1, 9),
    (8, 8, 13, 14),
    (70, 3, 3, 2),
]
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 4e-2,
    torch.float16: 4e-3,
}


def make_norm(channels, **options):
    """A norm of which every parameter and buffer has an effect."""
    generator = torch.Generator().manual_seed(channels)
    norm = nn.BatchNorm2d(channels, **options)
    for tensor in norm.state_dict().values():
        if tensor.dim():
            tensor.uniform_(0.5, 1.5, generator=generator)
    if norm.affine:
        norm.weight.data[::3] *= -1
        norm.bias.data -= 1
    return norm


def image(shape, dtype=torch.float64, seed=0):
    """About as far from the running mean of make_norm as it deviates."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (3 * x + 2).to(dtype)


def run(layer, norm, x, *parameters):
    """Output, gradients of x, norm and parameters, and the norm's buffers."""
    norm = copy.deepcopy(norm).to(torch.promote_types(x.dtype, torch.float32))
    leaves = [t.detach().clone().requires_grad_() for t in (x, *parameters)]
    y = layer(leaves[0], norm, *leaves[1:])
    seed = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    grads = torch.autograd.grad(
        y, [*leaves, *norm.parameters()], seed.to(y.dtype)
    )
    return [y, *grads, *norm.buffers()]


def assert_close(results, expected, tolerance):
    for result, value in zip(results, expected, strict=True):
        scale = value.double().abs().max().clamp(min=1e-2)
        error = (result.double() - value.double()).abs().max() / scale
        assert error <= tolerance, (result, value)


def plain(pool):
    def layer(x, norm):
        y = F.relu(norm(x))
        return F.max_pool2d(y, pool) if pool > 1 else y

    return layer


def plain_linear(x, norm, weight, bias, *residual):
    y = F.conv2d(F.relu(norm(x)), weight[..., None, None], bias)
    return y + residual[0] if residual else y


def linear_parameters(shape, outputs, dtype=torch.float64):
    batch, channels, height, width = shape
    shapes = [
        (outputs, channels),
        (outputs,),
        (batch, outputs, height, width),
    ]
    return [image(s, dtype, seed) for seed, s in enumerate(shapes, 1)]
