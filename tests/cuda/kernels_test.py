"""The fast CUDA kernels against the simple ones, which the CPU's confirm.

Run by tools/gpu_check, never by Bazel.
"""

import pytest
import torch

import cuda_kernels

_TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
# batch, channels, weight channels, height, width; the window. The five stages
# of SAN10, then sizes, sharings and windows that fit nothing well.
_CASES = [
    ((8, 16, 2, 112, 112), {"kernel_size": 3, "padding": 1}),
    ((8, 64, 8, 56, 56), {"kernel_size": 7, "padding": 3}),
    ((8, 128, 16, 28, 28), {"kernel_size": 7, "padding": 3}),
    ((8, 256, 32, 14, 14), {"kernel_size": 7, "padding": 3}),
    ((8, 512, 64, 7, 7), {"kernel_size": 7, "padding": 3}),
    ((64, 512, 64, 7, 7), {"kernel_size": 7, "padding": 3}),
    ((3, 12, 1, 61, 201), {"kernel_size": 7, "padding": 3}),
    ((1, 3, 3, 130, 67), {"kernel_size": 3, "padding": 1}),
    ((2, 20, 2, 9, 9), {"kernel_size": 11, "padding": 5}),
    ((2, 16, 2, 40, 33), {"kernel_size": 7, "padding": 39}),
    ((2, 8, 1, 64, 300), {"kernel_size": 7, "padding": 5, "stride": 2}),
    ((2, 8, 4, 33, 31), {"kernel_size": 5, "padding": 4, "dilation": 3}),
    (
        (5, 24, 3, 31, 70),
        {"kernel_size": 7, "padding": 3, "padding_mode": "zeros"},
    ),
    ((1, 2, 1, 3, 2), {"kernel_size": 3, "padding": 2000, "stride": 99}),
]
_IDS = [str(case) for case in _CASES]
SMALLEST = [_CASES[place] for place in (7, 8, 11, 12, 13)]


def outputs_of(side, kernel_size, padding=0, stride=1, dilation=1, **_):
    """Places of the window along one side."""
    return (side + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def shapes_of(case):
    """Shapes of input, weight, output, and subtraction2's output."""
    (batch, channels, groups, height, width), window = case
    rows, columns = (outputs_of(side, **window) for side in (height, width))
    taps, places = window["kernel_size"] ** 2, rows * columns
    return (
        (batch, channels, height, width),
        (batch, groups, taps, places),
        (batch, channels, rows, columns),
        (batch, channels, taps, places),
    )


def random(shape, dtype, seed):
    """The same numbers for every dtype, device and implementation."""
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.randn(shape, generator=generator, device="cuda")
    return values.bfloat16().to(dtype)


def everything(case, dtype, implementation, alone=False):
    """Outputs and gradients of both operators."""
    image, weight, output, taps = shapes_of(case)
    x, w = random(image, dtype, 0), random(weight, dtype, 1)
    grad, grad_taps = random(output, dtype, 2), random(taps, dtype, 3)
    b = random(image, dtype, 4)
    results = [
        torch.full(shape, torch.nan, dtype=dtype, device="cuda")
        for shape in (output, image, weight, taps, image, image)
    ]
    y, grad_x, grad_w, difference, grad_a, grad_b = results
    options = {
        **case[1],
        "implementation": implementation,
        "stream": torch.cuda.current_stream().cuda_stream,
    }
    cuda_kernels.aggregation_forward(x, w, y, **options)
    cuda_kernels.subtraction2_forward(x, b, difference, **options)
    pairs = [(grad_x, grad_w, grad_a, grad_b)]
    if alone:
        pairs = [(grad_x, None, grad_a, None), (None, grad_w, None, grad_b)]
    for one, other, first, second in pairs:
        cuda_kernels.aggregation_backward(grad, x, w, one, other, **options)
        cuda_kernels.subtraction2_backward(grad_taps, first, second, **options)
    return results


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("case", _CASES, ids=_IDS)
def test_fast_equals_simple(case, dtype):
    found = everything(case, dtype, "fast")
    wanted = everything(case, torch.float64, "simple")
    for one, other in zip(found, wanted, strict=True):
        error = (one.double() - other).abs().max() / other.abs().max()
        assert error <= _TOLERANCES[dtype]


@pytest.mark.parametrize("case", _CASES, ids=_IDS)
def test_each_gradient_alone_has_the_same_bits(case):
    together = everything(case, torch.float32, "fast")
    alone = everything(case, torch.float32, "fast", alone=True)
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("implementation", ["fast", "simple"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_convert_as_on_the_cpu(dtype, implementation):
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    numbers = numbers.view(dtype).reshape(1, 1, 256, 256)
    for factor in (1, -0.75, 1 / 3, 2e-3, 999):
        weight = torch.full((1, 1, 1, 2**16), factor, dtype=dtype)
        results = []
        for device in ("cuda", "cpu"):
            output = torch.empty_like(numbers, device=device)
            cuda_kernels.aggregation_forward(
                numbers.to(device),
                weight.to(device),
                output,
                kernel_size=1,
                implementation=implementation if device == "cuda" else "simple",
            )
            torch.cuda.synchronize()
            results.append(output.cpu())
        found, wanted = results
        assert torch.equal(found.isnan(), wanted.isnan())
        number = ~wanted.isnan()
        bits = [result[number].view(torch.int16) for result in results]
        assert torch.equal(*bits)
