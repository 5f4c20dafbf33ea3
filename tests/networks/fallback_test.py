"""Blocks whose sizes the fused operators do not take."""

import pytest
import torch

import san
from san.networks.san import Bottleneck
from tests.networks.steps import after_one_step

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def fused_again():
    yield
    san.set_attention_backend("fused")


@pytest.mark.parametrize(
    ("attention", "backend"),
    [(san.PairwiseAttention, "fused"), (san.PatchwiseAttention, "unfused")],
)
def test_a_footprint_of_129(attention, backend):
    torch.manual_seed(0)
    bottleneck = Bottleneck(attention, 32, 129).double()
    for parameter in bottleneck.parameters():  # No ReLU of exactly zero.
        parameter.data += 0.1 * torch.randn_like(parameter)
    assert bottleneck.sam.backend() == backend
    assert f"kernel_size=129, backend={backend}" in repr(bottleneck)
    x = torch.randn(2, 32, 3, 4, dtype=torch.float64)
    got = after_one_step(bottleneck, x, "fused")
    expected = after_one_step(bottleneck, x, "reference")
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_a_network_with_one_such_block_compiles():
    torch.manual_seed(0)
    model = san.SAN(san.PatchwiseAttention, (1, 1), (3, 129), (32, 32), 4)
    model.eval()
    images = torch.randn(2, 3, 8, 12)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        output = compiled(images)
        san.set_attention_backend("reference")
        torch.testing.assert_close(output, model(images))


def test_the_largest_that_fit():
    with torch.device("meta"):
        patchwise = [san.PatchwiseAttention(32, size) for size in (127, 129)]
        pairwise = [san.PairwiseAttention(c, 7) for c in (2048, 4096, 8192)]
    cpu = torch.device("cpu")
    for device in (cpu, CUDA):
        assert [b.fits_fused(device) for b in patchwise] == [True, False]
    assert [b.fits_fused(cpu) for b in pairwise] == [True, True, True]
    assert [b.fits_fused(CUDA) for b in pairwise] == [True, True, False]


def test_folding_takes_what_the_operators_take():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    model = san.SAN(san.PairwiseAttention, (1, 1), (3, 129), (32, 32), 4)
    model.double().eval()
    folded = san.fold_for_inference(model)
    torch.testing.assert_close(folded(images), model(images))
    model = san.SAN(san.PatchwiseAttention, (1, 1), (3, 129), (32, 32), 4)
    with pytest.raises(
        ValueError,
        match=r"fold_for_inference: every block must have sizes that the "
        r"fused operators take on cpu, got PatchwiseAttention of 32 channels "
        r"with kernel_size=129",
    ):
        san.fold_for_inference(model)
