"""The CUDA kernels on a GPU; run by tools/gpu_check, never by Bazel."""

import pytest
import torch

import cuda_kernels
import san
from san.ops import reference

_TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
# batch, channels, weight channels, height, width; the window.
_CASES = [
    ((2, 16, 2, 112, 112), {"kernel_size": 3, "padding": 1}),
    ((2, 64, 8, 56, 56), {"kernel_size": 7, "padding": 3}),
    ((3, 32, 4, 7, 7), {"kernel_size": 7, "padding": 3}),
    ((1, 6, 3, 5, 9), {"kernel_size": 11, "padding": 5}),
    ((2, 4, 4, 13, 8), {"kernel_size": 3, "padding": 2, "dilation": 2}),
    ((2, 4, 1, 13, 8), {"kernel_size": 3, "padding": 1, "stride": 2}),
    (
        (2, 4, 2, 9, 9),
        {"kernel_size": 5, "padding": 2, "padding_mode": "zeros"},
    ),
]
_IDS = [str(case) for case in _CASES]


@pytest.fixture(autouse=True)
def deterministic_seed():
    torch.manual_seed(0)


def inputs(op, case, dtype=torch.float64):
    """Tensors of an operator on the GPU, requiring gradients."""
    (batch, channels, groups, height, width), window = case
    window = san.ops.window.Window(**window)
    image = (batch, channels, height, width)
    shapes = [image, image]
    places = tuple(map(window.output_size, (height, width)))
    if op == "aggregation":
        pixels = places[0] * places[1]
        shapes[1] = (batch, groups, window.num_taps, pixels)
    if op == "correlation":
        shapes[0] = (batch, channels, *places)
    return [
        torch.randn(shape, dtype=torch.float64)
        .to("cuda", dtype)
        .requires_grad_()
        for shape in shapes
    ]


def run(module, op, tensors, case):
    """Output and both gradients."""
    (_, _, groups, _, _), window = case
    if op == "correlation":
        window = {"num_groups": groups, **window}
    output = getattr(module, op)(*tensors, **window)
    seed = torch.linspace(-1, 1, output.numel(), device="cuda")
    seed = seed.to(output.dtype).view_as(output)
    return [output, *torch.autograd.grad(output, tensors, seed)]


def test_the_module_finds_the_gpu():
    assert cuda_kernels.built_with_cuda()
    assert cuda_kernels.cuda_device_count() >= 1


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("case", _CASES, ids=_IDS)
@pytest.mark.parametrize("op", ["aggregation", "correlation", "subtraction2"])
def test_equals_the_reference_in_float64(op, case, dtype):
    tensors = inputs(op, case, dtype)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    results = run(san.ops, op, tensors, case)
    expected = run(reference, op, exact, case)
    for result, value in zip(results, expected, strict=True):
        error = (result.double() - value).abs().max() / value.abs().max()
        assert error <= _TOLERANCES[dtype]


@pytest.mark.parametrize("case", _CASES, ids=_IDS)
@pytest.mark.parametrize("op", ["aggregation", "correlation", "subtraction2"])
def test_two_runs_have_the_same_bits(op, case):
    tensors = inputs(op, case, torch.float32)
    first = run(san.ops, op, tensors, case)
    second = run(san.ops, op, tensors, case)
    assert all(map(torch.equal, first, second))


def test_runs_on_the_current_stream():
    x, weight = inputs("aggregation", _CASES[1], torch.float32)
    expected = san.ops.aggregation(x, weight, **_CASES[1][1])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(100_000_000)
        late.copy_(x.detach())
        result = san.ops.aggregation(late, weight, **_CASES[1][1])
    stream.synchronize()
    assert torch.equal(result, expected)


def test_can_be_captured_in_a_graph():
    x, weight = (
        t.detach() for t in inputs("aggregation", _CASES[1], torch.float32)
    )
    window = _CASES[1][1]
    san.ops.aggregation(x, weight, **window)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = san.ops.aggregation(x, weight, **window)
    x.mul_(-2)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(result, san.ops.aggregation(x, weight, **window))


def test_zero_images_launch_nothing():
    x = torch.empty(0, 4, 5, 5, device="cuda")
    weight = torch.empty(0, 2, 9, 25, device="cuda")
    assert san.ops.aggregation(x, weight, 3, padding=1).shape == x.shape
