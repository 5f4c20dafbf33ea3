"""The layers around attention on a GPU; run by tools/gpu_check."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from san import ops

_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


def _run(layer, modules, x):
    """Output, every gradient and the buffers, in float64 on the CPU."""
    modules = copy.deepcopy(modules).to(x.device, x.dtype)
    x = x.detach().clone().requires_grad_()
    y = layer(x, *modules)
    seed = torch.linspace(-1, 1, y.numel(), dtype=torch.float64)
    seed = seed.to(y).view(y.shape)
    grads = torch.autograd.grad(y, [x, *modules.parameters()], seed)
    return [t.double().cpu() for t in (y, *grads, *modules.buffers())]


def _check(fused, layers, modules, x):
    exact = _run(layers, modules, x.double())
    result = _run(fused, modules, x.cuda())
    for value, expected in zip(result, exact, strict=True):
        error = (value - expected).abs().max() / expected.abs().max()
        assert error <= _TOLERANCES[x.dtype]


@pytest.mark.smallest
@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [70, 72])
def test_norm_relu(channels, training, pool, dtype):
    torch.manual_seed(0)
    modules = nn.ModuleList([nn.BatchNorm2d(channels)]).train(training)
    x = torch.randn(3, channels, 29, 31, dtype=dtype)
    _check(
        lambda x, norm: ops.norm_relu(x, norm, pool),
        lambda x, norm: F.max_pool2d(F.relu(norm(x)), pool),
        modules,
        x,
    )


@pytest.mark.smallest
@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [1, 2])
def test_norm_relu_linear(pool, training, dtype):
    torch.manual_seed(0)
    modules = nn.ModuleList([nn.BatchNorm2d(64), nn.Conv2d(64, 24, 1)])
    _check(
        lambda x, norm, conv: ops.norm_relu_linear(
            x, norm, conv.weight, conv.bias, pool=pool
        ),
        lambda x, norm, conv: conv(F.max_pool2d(F.relu(norm(x)), pool)),
        modules.train(training),
        torch.randn(2, 64, 14, 13, dtype=dtype),
    )


@pytest.mark.smallest
@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_stem(training, dtype):
    torch.manual_seed(0)
    modules = nn.ModuleList(
        [nn.Conv2d(3, 64, 1, bias=False), nn.BatchNorm2d(64)]
    )
    _check(
        lambda x, conv, norm: ops.stem(x, conv, norm),
        lambda x, conv, norm: F.max_pool2d(F.relu(norm(conv(x))), 2),
        modules.train(training),
        torch.randn(2, 3, 45, 44, dtype=dtype),
    )


@pytest.mark.smallest
@pytest.mark.parametrize("channels", [70, 72])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pool", [1, 2])
def test_norm_relu_of_half_types(pool, dtype, channels):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels).eval()
    x = torch.randn(3, channels, 29, 31).to(dtype)
    exact = F.max_pool2d(F.relu(norm.double()(x.double())), pool)
    result = ops.norm_relu(x.cuda(), norm.float().cuda(), pool)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double().cpu(), exact, rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_moments_bear_an_outlying_pixel(dtype):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 512, 509).to(dtype)
    x[0, :, 0, 0] = 1e4
    mean, variance = torch.ops.san.channel_moments(x.cuda())
    exact = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.cpu(), exact.mean(1), rtol=0, atol=1e-5)
    expected = exact.var(1, unbiased=False)
    torch.testing.assert_close(variance.cpu(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 1, 1)])
def test_nothing_to_do(shape):
    norm = nn.BatchNorm2d(shape[1]).cuda().eval()
    x = torch.randn(shape, device="cuda", requires_grad=True)
    y = ops.norm_relu(x, norm, 2)
    y.sum().backward()
    assert y.numel() == 0
    assert not x.grad.any()


def test_two_runs_have_the_same_bits():
    modules = nn.ModuleList([nn.BatchNorm2d(64)])
    x = torch.randn(8, 64, 56, 56, device="cuda")
    runs = [
        _run(lambda x, norm: ops.norm_relu(x, norm, 2), modules, x)
        for _ in range(2)
    ]
    assert all(map(torch.equal, *runs))


def test_can_be_captured_in_a_graph():
    norm = nn.BatchNorm2d(64).cuda().eval()
    x = torch.randn(2, 64, 28, 28, device="cuda")
    with torch.inference_mode():
        ops.norm_relu(x, norm, 2)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = ops.norm_relu(x, norm, 2)
        x.mul_(-2)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(result, ops.norm_relu(x, norm, 2))
