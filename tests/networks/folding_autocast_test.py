"""Folded networks under autocast, by the kernels of networks in bfloat16."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import cuda_kernels
import san

KINDS = {"pair": san.PairwiseAttention, "patch": san.PatchwiseAttention}
OURS = {"san::pointwise", "san::pointwise_add_"}

pytestmark = pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)


def network(kind):
    torch.manual_seed(0)
    model = san.SAN(
        KINDS[kind],
        num_blocks=(1, 1, 1, 1, 1),
        widths=(32, 64, 64, 96, 96),
        num_classes=40,
    )
    return model.eval()


def images(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 67, 80, generator=generator).to(dtype)


def autocast(model, x, dtype=torch.bfloat16):
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        return model(x)


def called(model, x, dtype):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        autocast(model, x, dtype)
    return {event.key for event in seen.key_averages()}


def error_of(output, expected):
    return (output.double() - expected).square().mean().sqrt() / expected.std()


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_by_the_kernel(kind):
    model = network(kind)
    folded = san.fold_for_inference(model)
    assert called(folded, images(), torch.bfloat16) >= OURS
    assert not called(folded, images(), torch.float16) & OURS
    expected = model.double()(images(torch.float64)).detach()
    output = autocast(folded, images())
    assert output.dtype == torch.bfloat16
    assert error_of(output, expected) < 0.02
    assert error_of(autocast(folded, images(), torch.float16), expected) < 0.02


def test_other_processors_are_left_to_pytorch():
    folded = san.fold_for_inference(network("pair"))
    expected = folded(images()).double()
    cuda_kernels.use_instruction_set("avx2")
    try:
        assert not called(folded, images(), torch.bfloat16) & OURS
        assert error_of(autocast(folded, images()), expected) < 0.02
    finally:
        cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_turned_on_and_off(kind):
    folded = san.fold_for_inference(network(kind))
    plain, mixed = folded(images()), autocast(folded, images())
    assert torch.equal(folded(images()), plain)
    assert torch.equal(autocast(folded, images()), mixed)


def test_float64_stays_float64():
    folded = san.fold_for_inference(network("pair"), torch.float64)
    x = images(torch.float64)
    assert torch.equal(
        autocast(folded.network.layers, x), folded.network.layers(x)
    )


def test_changed_weights_count():
    folded = san.fold_for_inference(network("pair"))
    before = autocast(folded, images())
    with torch.no_grad():
        folded.network.layers.conv0.weight.mul_(2)
    after = autocast(folded, images())
    assert not torch.equal(after, before)
    other = san.fold_for_inference(network("pair"))
    other.load_state_dict(folded.state_dict())
    assert torch.equal(autocast(other, images()), after)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads(kind):
    folded = san.fold_for_inference(network(kind))
    threads, outputs = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        outputs.append(autocast(folded, images()))
    torch.set_num_threads(threads)
    assert all(torch.equal(y, outputs[0]) for y in outputs)
