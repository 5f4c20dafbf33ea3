"""Fused pairwise attention on a GPU; run by tools/gpu_check."""

import copy

import pytest
import torch
from torch import nn

import san
from san.ops import pairwise_attention

# Channels, footprint, batch, height, width: the layers of SAN10, and sizes
# that fit nothing.
SHAPES = [
    (64, 3, 2, 56, 56),
    (256, 7, 2, 28, 28),
    (512, 7, 2, 14, 14),
    (1024, 7, 1, 14, 9),
    (2048, 7, 2, 7, 7),
    (32, 3, 2, 5, 7),
    (64, 1, 2, 4, 3),
    (64, 3, 1, 1, 1),
    (96, 5, 3, 6, 5),
    (64, 9, 2, 1, 6),
    (64, 11, 1, 4, 13),
    (2560, 3, 1, 3, 4),
]
SMALLEST = SHAPES[5:10]
# Of the output, relative to its largest element.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 8e-2,
}
# Of gradients, as norms: below float64 an element may fall on the other side of
# a relu's corner.
GRADIENT_TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 5e-3,
    torch.float16: 1e-2,
    torch.bfloat16: 8e-2,
}
# Their gradient is zero: the softmax and the differences do not see them.
WITHOUT_EFFECT = ("conv_p.bias", "conv_w.5.bias")


def make_block(channels, kernel_size, dtype=torch.float64):
    """A block in which every parameter and buffer has an effect."""
    generator = torch.Generator().manual_seed(0)
    block = san.PairwiseAttention(channels, kernel_size).to(dtype)
    for parameter in block.parameters():
        fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(values / fan_in**0.5 + 0.2 * (fan_in == 4))
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return block.cuda()


def make_features(block, image, dtype=torch.float64):
    """phi, psi and beta in channels-last."""
    channels = sum(
        conv.out_channels for conv in (block.conv1, block.conv2, block.conv3)
    )
    generator = torch.Generator().manual_seed(1)
    batch, height, width = image
    features = torch.randn(
        (batch, channels, height, width), generator=generator
    )
    return features.to("cuda", dtype).contiguous(
        memory_format=torch.channels_last
    )


def definition(block, features, kernel_size):
    """What the unfused block computes between the same convolutions."""
    sizes = [c.out_channels for c in (block.conv1, block.conv2, block.conv3)]
    parts = iter(features.split(sizes, dim=1))
    plain = copy.copy(block)
    plain._modules = dict(block._modules)
    for name in ("conv1", "conv2", "conv3"):
        plain._modules[name] = _Constant(next(parts))
    san.set_attention_backend("reference")
    try:
        return plain(features)
    finally:
        san.set_attention_backend()


class _Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def attend(block, features, kernel_size):
    return pairwise_attention(features, block.conv_p, block.conv_w, kernel_size)


def run(function, block, features, kernel_size):
    """Output, gradients and buffers by name, after forward and backward."""
    block = copy.deepcopy(block)
    features = features.detach().clone().requires_grad_()
    output = function(block, features, kernel_size)
    seed = torch.linspace(-1, 1, output.numel(), device="cuda").sin()
    output.backward(seed.to(output.dtype).view(output.shape))
    mapping = {
        name: parameter.grad
        for name, parameter in block.named_parameters()
        if name.startswith(("conv_p", "conv_w"))
    }
    return (
        output.detach(),
        {"features": features.grad, **mapping},
        dict(block.named_buffers()),
    )


def assert_close(results, expected, tolerance):
    for name, value in expected.items():
        scale = tolerance * (value.abs().max().item() + 1)
        error = (results[name].double() - value).abs().max().item()
        assert error <= scale, (name, error, scale)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_reference_in_float64(shape, dtype, training):
    channels, kernel_size, *image = shape
    if training and image == [1, 1, 1]:
        dtype = torch.float64  # one pixel: statistics of equal numbers
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    block = make_block(channels, kernel_size, parameters).train(training)
    features = make_features(block, image, dtype)
    output, gradients, buffers = run(attend, block, features, kernel_size)
    assert output.dtype == dtype
    expected = run(
        definition,
        copy.deepcopy(block).double(),
        features.double(),
        kernel_size,
    )
    tolerance = TOLERANCES[dtype]
    assert_close({"output": output}, {"output": expected[0]}, tolerance)
    for name, value in expected[1].items():
        error = (gradients[name].double() - value).norm().item()
        scale = value.norm().item() + 1
        assert error <= GRADIENT_TOLERANCES[dtype] * scale, (name, error, scale)
    buffers = {name: value.double() for name, value in buffers.items()}
    exact = {name: value.double() for name, value in expected[2].items()}
    assert_close(buffers, exact, 1e-11 if dtype == torch.float64 else 1e-5)
    for name in WITHOUT_EFFECT:
        assert gradients[name].abs().max() == 0


@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_two_runs_have_the_same_bits(shape):
    channels, kernel_size, *image = shape
    block = make_block(channels, kernel_size, torch.float32).train()
    features = make_features(block, image, torch.float32)
    first = run(attend, block, features, kernel_size)
    second = run(attend, block, features, kernel_size)
    assert torch.equal(first[0], second[0])
    for before, after in zip(first[1:], second[1:], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_strides_do_not_matter():
    block = make_block(256, 7, torch.float32).eval()
    features = make_features(block, (2, 9, 12), torch.float32)
    expected = attend(block, features, 7)
    assert torch.equal(attend(block, features.contiguous(), 7), expected)


def test_runs_on_the_current_stream():
    block = make_block(256, 7, torch.float32).eval()
    features = make_features(block, (2, 28, 28), torch.float32)
    expected = run(attend, block, features, 7)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(features)
        torch.cuda._sleep(100_000_000)
        late.copy_(features)
        result = run(attend, block, late, 7)
    stream.synchronize()
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1]["features"], expected[1]["features"])


@pytest.mark.parametrize("training", [True, False])
def test_can_be_captured_in_a_graph(training):
    block = make_block(256, 7, torch.float32).train(training)
    features = make_features(block, (2, 14, 14), torch.float32)
    features.requires_grad_()

    def step():
        output = attend(block, features, 7)
        return output, torch.autograd.grad(output.square().sum(), features)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    with torch.no_grad():
        features.mul_(-2)
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, results, step()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_images(dtype):
    block = make_block(64, 3, torch.float32).eval()
    features = make_features(block, (0, 5, 4), dtype).requires_grad_()
    output = attend(block, features, 3)
    output.sum().backward()
    assert output.shape == (0, 16, 5, 4)
    assert features.grad.shape == features.shape
    assert not block.conv_w[2].weight.grad.any()
