"""Blocks whose sizes the fused operators do not take."""

import pytest
import torch

import san
from san.networks.san import Bottleneck
from san.ops.pairwise_attention import fits_pairwise
from tests.networks.steps import after_one_step

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def default_again():
    yield
    san.set_attention_backend()


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
    unfused = [
        san.why_unfused(block.to_empty(device="cpu")) for block in patchwise
    ]
    room = "the fused operator has no room for footprints above 127"
    assert unfused == [[], [room]]
    cpu = torch.device("cpu")
    for device, widest in ((cpu, True), (CUDA, False)):
        fits = [
            fits_pairwise(device, width // 16, width // 32, width // 4, 7)
            for width in (2048, 4096, 8192)
        ]
        assert fits == [True, True, widest]


def test_folding_takes_what_the_operators_take():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    model = san.SAN(san.PairwiseAttention, (1, 1), (3, 129), (32, 32), 4)
    model.double().eval()
    folded = san.fold_for_inference(model)
    torch.testing.assert_close(folded(images), model(images))
    model = san.SAN(san.PatchwiseAttention, (1, 1), (3, 129), (32, 32), 4)
    model.double().eval()
    with pytest.warns(
        UserWarning,
        match=r"fold_for_inference: left as it is: layer1_0: .* no room for "
        r"footprints above 127",
    ):
        folded = san.fold_for_inference(model)
    torch.testing.assert_close(folded(images), model(images))
