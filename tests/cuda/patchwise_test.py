"""The fused patchwise attention on a GPU; run by tools/gpu_check."""

import copy

import pytest
import torch
from torch import nn

from san.attention import PatchwiseAttention
from san.ops import reference
from san.ops.patchwise_attention import patchwise_attention

# Channels of the block, footprint, batch, height, width.
_CASES = [
    (64, 3, 2, 112, 112),
    (256, 7, 3, 28, 28),
    (1024, 7, 2, 7, 7),
    (64, 7, 3, 2, 3),
    (32, 5, 2, 1, 1),
    (96, 1, 2, 5, 4),
    (32, 11, 2, 12, 5),
    (32, 9, 1, 31, 133),
    (64, 13, 2, 21, 40),
]
_SMALL = _CASES[3]
SMALLEST = _CASES[3:7]
# Of the largest value + 1. In float32 gradients are compared by their root mean
# square: they jump where rounding lifts a value over the kink of a ReLU.
_EXACT = 1e-9
_ROUNDED = 1e-4
_ROUNDED_GRADIENT = 1e-2


def make_block(case, dtype=torch.float64):
    """A block whose normalisations are in use, and an image for it."""
    channels, kernel_size, batch, height, width = case
    torch.manual_seed(0)
    block = PatchwiseAttention(channels, kernel_size)
    for norm in (block.conv_w[0], block.conv_w[3]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    x = torch.randn(batch, channels, height, width)
    return block.to("cuda", dtype), x.to("cuda", dtype)


def fused(block, x):
    return patchwise_attention(
        block.conv1(x),
        block.conv2(x),
        block.conv3(x),
        block.conv_w,
        block.kernel_size,
    )


def by_definition(block, x):
    return reference.aggregation(
        block.conv3(x),
        block.weights(x),
        block.kernel_size,
        padding=block.padding,
    )


def everything(function, block, x):
    """Output, gradients and buffers by name, after one step."""
    block, x = copy.deepcopy(block), x.detach().clone().requires_grad_()
    output = function(block, x)
    seeds = torch.linspace(-1, 1, output.numel(), device=x.device)
    output.backward(seeds.to(output.dtype).view_as(output))
    return {
        "output": output.detach(),
        "x.grad": x.grad,
        **{f"{n}.grad": p.grad for n, p in block.named_parameters()},
        **{n: b.double() for n, b in block.named_buffers()},
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", _CASES, ids=str)
def test_equals_the_reference_in_float64(case, training):
    block, x = make_block(case)
    block.train(training)
    got = everything(fused, block, x)
    for name, expected in everything(by_definition, block, x).items():
        error = (got[name] - expected).abs().max() / (1 + expected.abs().max())
        assert error <= _EXACT, name


@pytest.mark.parametrize("pixel", [(13, 9), (0, 0)])
def test_not_a_number_is_passed_on(pixel):
    block, x = make_block(_CASES[1])
    block.eval()
    x[0, 0][pixel] = torch.nan
    got = everything(fused, block, x)
    for name, expected in everything(by_definition, block, x).items():
        torch.testing.assert_close(
            got[name],
            expected,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


# Without the image of one pixel: to normalise two values is ill-conditioned.
@pytest.mark.parametrize("case", _CASES[:4] + _CASES[5:], ids=str)
def test_float32_agrees_with_float64(case):
    block, x = make_block(case)
    exact = everything(fused, block, x)
    got = everything(fused, block.float(), x.float())
    for name, expected in exact.items():
        error = (got[name].double() - expected) / (1 + expected.abs().max())
        if name.endswith("grad"):
            assert error.square().mean().sqrt() <= _ROUNDED_GRADIENT, name
        else:
            assert error.abs().max() <= _ROUNDED, name


# Of the largest value: what tensor cores multiply has 8 or 11 bits.
_FACTORS = {
    torch.bfloat16: 2**-6,
    torch.float16: 2**-9,
    torch.float32: 2**-9,  # as TF32
}


@pytest.mark.parametrize("case", _CASES, ids=str)
@pytest.mark.parametrize("dtype", _FACTORS, ids=str)
def test_tensor_cores_agree_with_float64(case, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    hidden, core = operands(case)
    images = {"hidden": (1, 2), "core": (0, 2)}
    for name, group in (("hidden", hidden), ("core", core)):
        for index in images[name]:
            group[index] = group[index].to(dtype)
    got = both_operators(hidden, core, case[1])
    again = both_operators(hidden, core, case[1])
    assert all(map(torch.equal, got, again))
    exact = both_operators(
        *([t.double() for t in group] for group in (hidden, core)), case[1]
    )
    for result, expected in zip(got, exact, strict=True):
        error = (result.double() - expected).abs().max()
        assert error <= _FACTORS[dtype] * (1 + expected.abs().max())


def test_float32_is_no_tf32_unless_allowed():
    hidden, core = operands(_CASES[1])
    got = both_operators(hidden, core, 7)
    exact = both_operators(
        *([t.double() for t in group] for group in (hidden, core)), 7
    )
    for result, expected in zip(got, exact, strict=True):
        error = (result.double() - expected).abs().max()
        assert error <= _ROUNDED * (1 + expected.abs().max())


def test_autocast():
    block, x = make_block(_SMALL, torch.float32)
    exact = everything(fused, block, x)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        got = everything(fused, block, x)
    assert got["output"].dtype == torch.bfloat16
    torch.testing.assert_close(
        got["output"].float(), exact["output"], rtol=0.1, atol=0.1
    )


def test_any_strides():
    block, x = make_block(_CASES[1])
    expected = everything(fused, block, x)
    layout = x.to(memory_format=torch.channels_last)
    got = everything(fused, block, layout)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


def test_no_images():
    block, x = make_block(_SMALL)
    assert fused(block.eval(), x[:0]).shape == (0, 16, 2, 3)


def operands(case, dtype=torch.float32):
    """Arguments of both operators, and gradients of their outputs."""
    channels, k, batch, height, width = case
    R, C, G = channels // 16, channels // 4, channels // 32
    image, S = (height, width), R * (k * k + 1)
    shapes = [(batch, R, *image)] * 2 + [(1, S, 1, 1)] * 2 + [(G, S, 1, 1)]
    torch.manual_seed(1)
    hidden, core = (
        [torch.randn(s, device="cuda", dtype=dtype) for s in group]
        for group in (
            [(batch, G, *image), *shapes],
            [
                *[(batch, C, *image), (batch, G, *image), (batch, C, *image)],
                *[(G, k, k, G), (1, G, k, k)],
            ],
        )
    )
    return hidden, core


def both_operators(hidden, core, kernel_size):
    """Outputs and gradients of both operators."""
    ops = torch.ops.san
    return [
        ops.patchwise_hidden(*hidden[1:], kernel_size),
        *ops.patchwise_hidden_backward(*hidden, kernel_size),
        ops.patchwise_core(*core[1:]),
        *ops.patchwise_core_backward(*core),
    ]


@pytest.mark.parametrize("case", _CASES, ids=str)
def test_two_runs_have_the_same_bits(case):
    hidden, core = operands(case)
    first = both_operators(hidden, core, case[1])
    second = both_operators(hidden, core, case[1])
    assert all(map(torch.equal, first, second))


def test_runs_on_the_current_stream():
    hidden, core = operands(_CASES[1])
    expected = both_operators(hidden, core, 7)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [
            [torch.zeros_like(t) for t in group] for group in (hidden, core)
        ]
        torch.cuda._sleep(100_000_000)
        for group, values in zip(late, (hidden, core), strict=True):
            for tensor, value in zip(group, values, strict=True):
                tensor.copy_(value)
        results = both_operators(*late, 7)
    stream.synchronize()
    assert all(map(torch.equal, results, expected))


def test_can_be_captured_in_a_graph():
    hidden, core = operands(_CASES[1])
    both_operators(hidden, core, 7)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = both_operators(hidden, core, 7)
    for tensor in (*hidden, *core):
        tensor.mul_(-2)
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, results, both_operators(hidden, core, 7)))


def test_a_training_step_can_be_captured_in_a_graph():
    block, x = make_block(_CASES[1], torch.float32)

    def step():
        block.zero_grad(set_to_none=False)
        output = fused(block, x)
        output.square().sum().backward()
        return output

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    x.mul_(-0.5)
    graph.replay()
    captured = [output.clone(), *(p.grad.clone() for p in block.parameters())]
    again = [step(), *(p.grad for p in block.parameters())]
    for got, expected in zip(captured, again, strict=True):
        error = (got - expected).abs().max() / (1 + expected.abs().max())
        assert error <= _ROUNDED


def test_derivatives():
    hidden, core = operands((32, 3, 1, 3, 4), torch.float64)
    for op, inputs, rest in (
        (torch.ops.san.patchwise_hidden, hidden[1:], (3,)),
        (torch.ops.san.patchwise_core, core[1:], ()),
    ):
        tensors = [t.requires_grad_() for t in inputs]
        assert torch.autograd.gradcheck(op, (*tensors, *rest))
