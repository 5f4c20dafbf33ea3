"""Every way to compute the blocks and operators, on shapes nobody chose.

The blocks: the fused, the unfused and the reference backend agree in output,
every gradient and every running statistic, and give the same bits twice. The
operators: kernels agree with their definitions in plain torch.
"""

import contextlib
import copy
import functools
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import san
from san.ops import aggregation, reference, subtraction2
from san.ops.window import PADDING_MODES, Window
from tests.ops.windows import gradients, random_tensor

LAYOUTS = st.sampled_from(["contiguous", "channels_last", "slice"])
SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 999)


class BlockCase(NamedTuple):
    """A block and the image it is given."""

    channels: int
    kernel_size: int
    batch: int
    height: int
    width: int
    dtype: torch.dtype
    layout: str
    training: bool
    seed: int


class OperatorCase(NamedTuple):
    """A window, the image it moves over, and G * ratio channels."""

    window: Window
    batch: int
    groups: int
    ratio: int
    height: int
    width: int
    dtype: torch.dtype
    layout: str
    seed: int


BLOCK_CASES = st.builds(
    BlockCase,
    channels=st.sampled_from([32, 64, 96]),
    kernel_size=st.sampled_from([3, 5, 7, 9, 11]),
    batch=st.integers(1, 3),
    height=SIZES,
    width=SIZES,
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=LAYOUTS,
    training=st.booleans(),
    seed=SEEDS,
)
# Errors, in units of the tensor's largest value + 1. The largest of float64:
EXACT = 1e-9
# The largest of float32 in the output and the statistics, and the root mean
# square in a gradient: it jumps where rounding lifts a value over the kink of a
# ReLU, and each backend rounds elsewhere.
ROUNDED = 2e-5
ROUNDED_GRADIENT = 1e-2
# To normalise values that hardly differ is ill-conditioned. There, float32 may
# lose this many times what the reference loses.
WORSE = 8

# An operator's error: units of the exact value, for the rounding to a half
# type, and units of the tensor's largest value + 1, for the sums before it.
TOLERANCES = {
    torch.float64: (0, 1e-13),
    torch.float32: (0, 1e-5),
    torch.float16: (2**-10, 1e-5),
    torch.bfloat16: (2**-7, 1e-5),
}
OPERATOR_CASES = st.builds(
    OperatorCase,
    window=st.builds(
        Window,
        kernel_size=st.integers(1, 7),
        stride=st.integers(1, 4),
        padding=st.integers(0, 7),
        dilation=st.integers(1, 3),
        padding_mode=st.sampled_from(PADDING_MODES),
    ),
    batch=st.integers(1, 3),
    groups=st.integers(1, 5),
    ratio=st.integers(1, 9),
    height=SIZES,
    width=SIZES,
    dtype=st.sampled_from(list(TOLERANCES)),
    layout=LAYOUTS,
    seed=SEEDS,
)


def sweep(num_examples):
    """Settings: the same examples in every run."""
    return settings(max_examples=num_examples, deadline=None, derandomize=True)


def laid_out(tensor, layout):
    """A leaf of the same values; a slice has not-a-numbers all around."""
    tensor = tensor.detach().clone()
    if layout == "channels_last":
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    elif layout == "slice":
        batch, channels, height, width = tensor.shape
        larger = tensor.new_full(
            (batch, channels + 1, 2 * height, width + 2), torch.nan
        )
        tensor = larger[:, 1:, ::2, 1:-1].copy_(tensor)
    return tensor.requires_grad_()


@contextlib.contextmanager
def backend(name):
    before = san.attention_backend()
    san.set_attention_backend(name)
    try:
        yield
    finally:
        san.set_attention_backend(before)


BLOCKS = {
    "pairwise": san.PairwiseAttention,
    "patchwise": san.PatchwiseAttention,
    "pairwise bottleneck": functools.partial(
        san.Bottleneck, san.PairwiseAttention
    ),
    "patchwise bottleneck": functools.partial(
        san.Bottleneck, san.PatchwiseAttention
    ),
}


def make_block(kind, case):
    """A block in which every normalisation has an effect."""
    torch.manual_seed(case.seed)
    block = BLOCKS[kind](case.channels, case.kernel_size)
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        # Off the kink, where all values of a channel are equal.
        nn.init.uniform_(norm.bias, 0.1, 0.5)
        norm.bias.data[::2] *= -1
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return block.to(case.dtype).train(case.training)


def step(block, x, name):
    """What is continuous in the values, and the gradients, of one step."""
    block = copy.deepcopy(block)
    with backend(name):
        output = block(x)
    seeds = random_tensor(*output.shape, dtype=output.dtype, seed=3).detach()
    x.grad = None
    output.backward(seeds)
    return (
        {"output": output.detach(), **dict(block.named_buffers())},
        {"x": x.grad, **{name: p.grad for name, p in block.named_parameters()}},
    )


def errors(got, exact, norm):
    """By name, in units of the largest exact value + 1."""
    assert got.keys() == exact.keys()
    return {
        name: norm(got[name].double() - value.double())
        / (value.abs().max() + 1)
        for name, value in exact.items()
    }


def largest(error):
    return error.abs().max()


def root_mean_square(error):
    return error.square().mean().sqrt()


@pytest.mark.parametrize("kind", BLOCKS)
@sweep(120)
@given(case=BLOCK_CASES)
def test_blocks_agree_on_every_backend(kind, case):
    assume(can_be_normalised(kind, case))
    block = make_block(kind, case)
    values = random_tensor(
        case.batch,
        case.channels,
        case.height,
        case.width,
        dtype=case.dtype,
        seed=case.seed,
    )
    x = laid_out(values, case.layout)
    results = []
    for name in ("fused", "unfused"):
        result, again = step(block, x, name), step(block, x, name)
        for one, other in zip(result, again, strict=True):
            for key in one:
                assert torch.equal(one[key], other[key]), (name, key)
        results.append(result)
    if case.dtype == torch.float64:
        assert_exact(results, step(block, x, "reference"))
    else:
        exact = step(
            copy.deepcopy(block).double(),
            laid_out(values.double(), "contiguous"),
            "reference",
        )
        assert_rounded(results, step(block, x, "reference"), exact)


def can_be_normalised(kind, case):
    """Torch, and the blocks with it, refuses one value per channel.

    In training only, and not where the pairwise mapping alone normalises: it
    does so over the taps too.
    """
    return not (
        kind != "pairwise"
        and case.training
        and case.batch * case.height * case.width == 1
    )


def assert_exact(results, expected):
    for result in results:
        for got, exact in zip(result, expected, strict=True):
            for name, error in errors(got, exact, largest).items():
                assert error <= EXACT, name


def assert_rounded(results, reference_result, expected):
    rules = ((largest, ROUNDED), (root_mean_square, ROUNDED_GRADIENT))
    for result in results:
        for got, rounded, exact, (norm, tolerance) in zip(
            result, reference_result, expected, rules, strict=True
        ):
            loss = errors(rounded, exact, norm)
            for name, error in errors(got, exact, norm).items():
                assert error <= max(tolerance, WORSE * loss[name]), name


def num_outputs(case):
    """Pixels of the output; none where the window fits nowhere."""
    rows = case.window.output_size(case.height)
    columns = case.window.output_size(case.width)
    return max(rows, 0) * max(columns, 0)


def assert_kernel_agrees(operator, definition, inputs, case):
    """Output and gradients, twice the same bits."""
    window = case.window._asdict()
    leaves = [laid_out(tensor, case.layout) for tensor in inputs]
    got = gradients(operator, leaves, **window)
    again = gradients(operator, leaves, **window)
    exact = gradients(
        definition,
        [laid_out(tensor.double(), "contiguous") for tensor in inputs],
        **window,
    )
    rtol, atol = TOLERANCES[case.dtype]
    for value, same, expected in zip(got, again, exact, strict=True):
        assert value.dtype == case.dtype
        assert torch.equal(value, same)
        torch.testing.assert_close(
            value.double(),
            expected,
            rtol=rtol,
            atol=atol * (expected.abs().max().item() + 1),
        )


# Elsewhere a window without a place is refused; aggregation_test has it.
@sweep(150)
@given(case=OPERATOR_CASES)
def test_aggregation_equals_its_definition(case):
    assume(num_outputs(case))
    image = (case.batch, case.ratio * case.groups, case.height, case.width)
    taps = (case.batch, case.groups, case.window.num_taps, num_outputs(case))
    inputs = [
        random_tensor(*shape, dtype=case.dtype, seed=case.seed + number)
        for number, shape in enumerate((image, taps))
    ]
    assert_kernel_agrees(aggregation, reference.aggregation, inputs, case)


@sweep(150)
@given(case=OPERATOR_CASES)
def test_subtraction2_equals_its_definition(case):
    assume(num_outputs(case))
    image = (case.batch, case.ratio * case.groups, case.height, case.width)
    inputs = [
        random_tensor(*image, dtype=case.dtype, seed=case.seed + number)
        for number in range(2)
    ]
    assert_kernel_agrees(subtraction2, reference.subtraction2, inputs, case)
