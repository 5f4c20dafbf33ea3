"""The stem as one operator against torch's layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from san.ops import stem

# N, I, H, W and C: odd sizes, partial vectors, and other than three channels.
SHAPES = [
    ((1, 3, 2, 2), 1),
    ((2, 3, 5, 7), 20),
    ((1, 1, 9, 4), 64),
    ((3, 4, 6, 3), 33),
    ((70, 3, 3, 2), 8),
]


def make_layers(inputs, channels):
    generator = torch.Generator().manual_seed(channels)
    conv = nn.Conv2d(inputs, channels, 1, bias=False)
    norm = nn.BatchNorm2d(channels)
    for tensor in (conv.weight, *norm.state_dict().values()):
        if tensor.dim():
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    norm.weight.data[::3] *= -1
    conv.weight.data[:, ::2] *= -1
    return nn.ModuleList([conv, norm])


def images(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x + 0.5).to(dtype)


def plain(x, conv, norm):
    return F.max_pool2d(F.relu(norm(conv(x))), 2)


def run(layer, layers, x):
    """Output, gradients of images and parameters, and the norm's buffers."""
    layers = copy.deepcopy(layers).to(x.dtype)
    x = x.detach().clone().requires_grad_()
    y = layer(x, *layers)
    seed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    grads = torch.autograd.grad(y, [x, *layers.parameters()], seed)
    return [y, *grads, *layers.buffers()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "channels"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_layers(shape, channels, training, dtype):
    layers = make_layers(shape[1], channels).train(training)
    results = run(stem, layers, images(shape, dtype))
    expected = run(plain, layers, images(shape, dtype).double())
    bound = 1e-11 if dtype == torch.float64 else 3e-5
    for result, value in zip(results, expected, strict=True):
        scale = value.abs().max().clamp(min=1e-2)
        assert (result - value).abs().max() <= bound * scale


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training):
    conv, norm = make_layers(3, 4).double().train(training)
    x = images((2, 3, 5, 4)).requires_grad_()

    def layer(x, weight, gamma, beta):
        values = {"0.weight": weight, "1.weight": gamma, "1.bias": beta}
        return torch.func.functional_call(_Stem(conv, norm), values, x)

    parameters = [conv.weight, norm.weight, norm.bias]
    leaves = [p.detach().clone().requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(layer, (x, *leaves))


class _Stem(nn.Sequential):
    def forward(self, x):
        return stem(x, *self)


def test_half_images_are_near_float32():
    layers = make_layers(3, 24).eval()
    x = images((2, 3, 8, 6)).float()
    expected = stem(x, *layers)
    result = stem(x.bfloat16(), *layers)
    assert result.dtype == torch.bfloat16
    assert (result - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_nothing_of_the_convolution_is_kept():
    layers = make_layers(3, 64)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        stem(images((2, 3, 32, 32), torch.float32), *layers)
    assert max(saved) <= 2 * 3 * 32 * 32


def test_every_number_of_threads_gives_the_same_bits():
    layers = make_layers(3, 20)
    x = images((9, 3, 15, 11), torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(run(stem, layers, x))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_compiles():
    layers = make_layers(3, 8)
    compiled = torch.compile(stem, fullgraph=True, backend="aot_eager")
    x = images((2, 3, 6, 5), torch.float32)
    for result, value in zip(
        run(compiled, layers, x), run(stem, layers, x), strict=True
    ):
        torch.testing.assert_close(result, value)


def test_errors_name_the_rule():
    conv, norm = make_layers(3, 4)
    x = torch.ones(1, 3, 4, 4)
    with pytest.raises(ValueError, match="must have the 3 channels of conv"):
        stem(x[:, :2], conv, norm)
    with pytest.raises(ValueError, match=r"tensor \[N, I, H, W\], got \[3, 4"):
        stem(x[0], conv, norm)
    with pytest.raises(ValueError, match="on the CPU or CUDA, got meta"):
        stem(x.to("meta"), conv, norm)
    with pytest.raises(ValueError, match="1x1 convolution without bias"):
        stem(x, nn.Conv2d(3, 4, 1), norm)
    with pytest.raises(ValueError, match="without bias, stride, padding"):
        stem(x, nn.Conv2d(3, 4, 1, stride=2, bias=False), norm)
    with pytest.raises(ValueError, match="norm must have the 4 channels"):
        stem(x, conv, nn.BatchNorm2d(5))
    with pytest.raises(ValueError, match=r"floating type, got torch.uint8"):
        stem(x.byte(), conv, norm)


def test_opcheck():
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = torch.randn(6, 3, requires_grad=True)
    shift = torch.randn(6, requires_grad=True)
    torch.library.opcheck(torch.ops.san.stem.default, (x, weight, shift))
