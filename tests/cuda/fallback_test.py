"""Blocks of the largest sizes on a GPU; run by tools/gpu_check."""

import pytest
import torch

import san
from tests.networks.steps import after_one_step

# Block, channels, footprint, and how it computes: at 8192 channels a tile of
# the pairwise kernels might not fit shared memory, at 4096 it does on any GPU.
CASES = [
    (san.PairwiseAttention, 4096, 7, "fused"),
    (san.PairwiseAttention, 8192, 3, "unfused"),
    (san.PairwiseAttention, 32, 129, "fused"),
    (san.PatchwiseAttention, 32, 127, "fused"),
    (san.PatchwiseAttention, 32, 129, "unfused"),
]


@pytest.fixture(autouse=True)
def default_again():
    yield
    san.set_attention_backend()


@pytest.mark.parametrize(("attention", "channels", "size", "backend"), CASES)
def test_computes_what_the_reference_does(attention, channels, size, backend):
    torch.manual_seed(0)
    block = attention(channels, size).to("cuda", torch.float64)
    for parameter in block.parameters():  # No ReLU of exactly zero.
        parameter.data += 0.01 * torch.randn_like(parameter)
    assert block.backend() == backend
    x = torch.randn(2, channels, 3, 4, dtype=torch.float64, device="cuda")
    got = after_one_step(block, x, "fused")
    expected = after_one_step(block, x, "reference")
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
