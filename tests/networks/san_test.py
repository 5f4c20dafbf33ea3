"""What the self-attention networks compute."""

import json
import pathlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import san
from tests.networks import plain_san, synthetic

ATTENTIONS = {
    "pair": san.PairwiseAttention,
    "patch": san.PatchwiseAttention,
}
GOLDEN = json.loads(pathlib.Path(__file__).with_name("golden.json").read_text())


def small_san(kind):
    """All five stages, narrow."""
    torch.manual_seed(0)
    return san.SAN(
        ATTENTIONS[kind],
        num_blocks=(1, 2, 1, 1, 1),
        widths=(32, 64, 64, 96, 96),
        num_classes=4,
    )


def shuffled(model):
    """Random in every parameter: BN starts with all ones and zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise)
    return model.double()


def gradients(loss, parameters):
    grads = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, grads, strict=True))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(name):
    model = san.create_model(name).eval()
    model.load_state_dict(synthetic.state_dict(model, name.split("_")[1]))
    with torch.no_grad():
        logits = model(synthetic.image())
    torch.testing.assert_close(
        logits[0, ::37],
        torch.tensor(GOLDEN[name]["logits"]),
        rtol=0,
        atol=2e-4,
    )


@pytest.mark.parametrize("size", [(11, 9), (4, 7), (2, 2), (1, 3)])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_an_attention_block_in_training(kind, size):
    torch.manual_seed(0)
    model = shuffled(ATTENTIONS[kind](64, 7))
    x = torch.randn(2, 64, *size, dtype=torch.float64, requires_grad=True)
    parameters = {**dict(model.named_parameters()), "x": x}
    output = model(x)
    expected = plain_san.attention(parameters, kind, x, 7)
    torch.testing.assert_close(output, expected)
    seeds = torch.randn_like(output)
    torch.testing.assert_close(
        gradients((output * seeds).sum(), parameters),
        gradients((expected * seeds).sum(), parameters),
    )


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (75, 33)])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_network_in_training(kind, size):
    model = shuffled(small_san(kind))
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    labels = torch.tensor([3, 0, 2])
    parameters = dict(model.named_parameters())
    loss = F.cross_entropy(model(images), labels)
    expected = F.cross_entropy(
        plain_san.logits(parameters, kind, images), labels
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        gradients(loss, parameters), gradients(expected, parameters)
    )


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (33, 47), (224, 32)])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_small_images_in_evaluation(kind, size):
    model = small_san(kind).eval()
    with torch.no_grad():
        one, two = model(torch.randn(2, 3, *size))
    assert one.isfinite().all()
    assert not torch.equal(one, two)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_weights_of_a_footprint(kind):
    torch.manual_seed(0)
    block = ATTENTIONS[kind](64, 5)
    weights = block.weights(torch.randn(2, 64, 6, 7))
    assert weights.shape == (2, 2, 25, 42)
    is_mean = torch.allclose(weights.sum(2), torch.ones(2, 2, 42))
    assert is_mean == (kind == "pair")


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_channels_last_images(kind):
    model = small_san(kind).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        model.to(memory_format=torch.channels_last)
        output = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_compiles_into_one_graph(kind):
    model = shuffled(small_san(kind))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    images = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    expected, grads = (
        gradients(network(images).square().sum(), parameters)
        for network in (model, compiled)
    )
    torch.testing.assert_close(grads, expected)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_exports_with_free_sizes(kind):
    block = ATTENTIONS[kind](32, 3).eval()
    size = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        block,
        (torch.randn(2, 32, 6, 5),),
        dynamic_shapes=({0: size, 2: size, 3: size},),
    )
    x = torch.randn(3, 32, 9, 8)
    torch.testing.assert_close(exported.module()(x), block(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_trains_under_autocast(kind, dtype):
    model = small_san(kind)
    images = torch.randn(4, 3, 64, 64)
    labels = torch.arange(4)
    expected = F.cross_entropy(model(images), labels)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
    assert logits.dtype == dtype
    torch.testing.assert_close(loss, expected, rtol=0.1, atol=0.1)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_model_in_bfloat16(kind):
    model = small_san(kind).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        output = model.bfloat16()(images.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1)


def test_distributed_data_parallel(tmp_path):
    model = small_san("pair")
    images = torch.randn(2, 3, 32, 32)
    parameters = dict(model.named_parameters())
    expected = gradients(model(images).square().sum(), parameters)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        parallel(images).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_two_runs_are_equal_to_the_bit():
    images = torch.randn(2, 3, 64, 64)
    losses = [small_san("pair")(images).square().sum() for _ in range(2)]
    assert torch.equal(*losses)
