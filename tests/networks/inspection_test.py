import copy

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import san


def small(attention):
    torch.manual_seed(0)
    model = san.SAN(attention, (1, 2), (3, 5), (32, 64), num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


ATTENTIONS = [
    san.PairwiseAttention,
    san.PatchwiseAttention,
    san.ScalarAttention,
]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("block", ["layer0.0", "layer1.1.sam"])
def test_they_are_what_the_block_sums_with(attention, block):
    model = small(attention).eval()
    images = torch.randn(2, 3, 13, 22)
    weights = san.attention_weights(model, images, block)
    sam = san.attention_blocks(model)[block.removesuffix(".sam") + ".sam"]
    seen = []
    handle = sam.register_forward_hook(lambda *call: seen.append(call[1:]))
    model(images)
    handle.remove()
    (((x,), output),) = seen
    size = sam.kernel_size
    height, width = x.shape[2:]
    assert weights.shape == (2, sam.weight_channels, size, size, height, width)
    found = san.ops.aggregation(
        sam.conv3(x),
        weights.reshape(2, sam.weight_channels, size**2, -1),
        kernel_size=size,
        padding=size // 2,
    )
    torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-5)
    if attention is not san.PatchwiseAttention:
        sums = weights.sum((2, 3))
        torch.testing.assert_close(sums, torch.ones_like(sums))
        assert not weights.requires_grad


@pytest.mark.parametrize("backend", ["fused", "unfused", "reference"])
def test_every_backend_has_the_same(backend):
    model, images = small(san.PairwiseAttention), torch.randn(1, 3, 16, 16)
    expected = san.attention_weights(model, images, "layer1.0")
    with san.use_attention_backend(backend):
        found = san.attention_weights(model, images, "layer1.0")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_nothing_of_the_network_changes():
    model = small(san.PairwiseAttention).train()
    model.layer0.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    san.attention_weights(model, torch.randn(2, 3, 16, 16), "layer1.1")
    with pytest.raises(RuntimeError):
        san.attention_weights(model, torch.randn(2, 5, 16, 16), "layer1.1")
    assert modes == [module.training for module in model.modules()]
    assert hooks == [len(m._forward_pre_hooks) for m in model.modules()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert model.layer1[1].sam.why_unfused(torch.empty(0, 64, 1, 1)) == []


def test_hooks_and_compiled_networks_are_respected():
    model, images = small(san.PairwiseAttention), torch.randn(1, 3, 16, 16)
    plain = san.attention_weights(model, images, "layer0.0")
    compiled = torch.compile(model)
    assert torch.equal(
        san.attention_weights(compiled, images, "layer0.0"), plain
    )
    model.bn_in.register_forward_hook(lambda module, inputs, output: 2 * output)
    changed = san.attention_weights(model, images, "layer0.0")
    assert not torch.allclose(changed, plain)


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_part_in_place(model):
    model.layer0.compile(backend="eager")
    return model


def compiled_part(model):
    model.layer0 = torch.compile(model.layer0, backend="eager")
    return model


@pytest.mark.parametrize(
    "wrapped",
    [
        compiled_in_place,
        compiled_part_in_place,
        compiled_part,
        nn.DataParallel,
        swa_utils.AveragedModel,
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
)
def test_wrapped_and_compiled_networks(wrapped):
    model, images = small(san.PairwiseAttention), torch.randn(2, 3, 16, 16)
    expected = san.attention_weights(model, images, "layer0.0")
    names = list(san.attention_blocks(model))
    other = wrapped(copy.deepcopy(model))
    with torch.no_grad():
        logits = other.eval()(images)  # Now there is compiled code.
    assert list(san.attention_blocks(other)) == names
    for name in ("layer0.0", names[0]):
        found = san.attention_weights(other, images, name)
        assert torch.equal(found, expected)
    with torch.no_grad():
        assert torch.equal(other(images), logits)


def test_errors_name_the_blocks():
    model, images = small(san.PairwiseAttention), torch.randn(1, 3, 16, 16)
    with pytest.raises(
        ValueError,
        match=r"got 'layer9'. Known: layer0.0.sam, layer1.0.sam, layer1.1.sam",
    ):
        san.attention_weights(model, images, "layer9")
    for other in (
        san.fold_for_inference(model),
        san.create_model("resnet26", num_classes=2),
    ):
        with pytest.raises(ValueError, match="Known: none"):
            san.attention_weights(other, images, "layer0.0")
    model.extra = san.PairwiseAttention(32, 3)
    with pytest.raises(ValueError, match=r"must be run .* got 'extra'"):
        san.attention_weights(model, images, "extra")
