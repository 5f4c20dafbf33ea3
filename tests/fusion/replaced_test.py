"""Classes and functions that somebody has replaced for the whole process."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import san
from san.attention import PatchConcatenation, RelativePosition, Subtraction
from san.attention.block import Attention
from san.networks.san import Bottleneck
from tests.fusion.networks import ATTENTIONS, images, network

BOTH = tuple(ATTENTIONS)
# What is replaced, and the networks that see it.
REPLACED = [
    (san.PairwiseAttention, "weights", ("pair",)),
    (san.PatchwiseAttention, "weights", ("patch",)),
    (san.PairwiseAttention, "forward", ("pair",)),
    (Attention, "forward", BOTH),
    (Attention, "_sum", BOTH),
    (Subtraction, "forward", ("pair",)),
    (RelativePosition, "forward", ("pair",)),
    (PatchConcatenation, "forward", ("patch",)),
    (Bottleneck, "forward", BOTH),
    (nn.Sequential, "forward", BOTH),
    (nn.Conv2d, "forward", BOTH),
    (nn.Conv2d, "__call__", BOTH),
    (nn.Conv2d, "_conv_forward", BOTH),
    (nn.BatchNorm2d, "forward", BOTH),
    (nn.MaxPool2d, "forward", BOTH),
    (nn.ReLU, "_call_impl", BOTH),
    (nn.Module, "_call_impl", BOTH),
    (F, "relu", BOTH),
    (F, "batch_norm", BOTH),
    (torch, "max_pool2d", ()),
    (torch.Tensor, "softmax", ("pair",)),
]
CASES = [
    (owner, name, kind)
    for owner, name, kinds in REPLACED
    for kind in BOTH
    if kind in kinds
]


@pytest.mark.parametrize(("owner", "name", "kind"), CASES)
def test_is_called(owner, name, kind, monkeypatch):
    model, x = network(kind).eval(), images()
    with torch.no_grad():
        plain = model(x)
        old = getattr(owner, name)

        @functools.wraps(old)
        def scaled(*args, **kwargs):
            return old(*args, **kwargs) * 0.8

        monkeypatch.setattr(owner, name, scaled)
        got = model(x)
        with san.use_attention_backend("reference"):
            expected = model(x)
        assert san.why_unfused(model, x) or owner in (Bottleneck, nn.Sequential)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                folded = san.fold_for_inference(model)(x)
            except ValueError as error:
                assert str(error).startswith("fold_for_inference: model must")
                folded = expected
    assert not torch.allclose(expected, plain)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(folded, expected, rtol=1e-8, atol=1e-9)


class Scaling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        is_relu = getattr(function, "__name__", "") == "relu"
        return result * 0.8 if is_relu else result


@pytest.mark.parametrize("kind", BOTH)
def test_a_mode_for_functions_sees_them(kind):
    model, x = network(kind).eval(), images()
    with torch.no_grad():
        plain = model(x)
        with Scaling():
            got = model(x)
            with san.use_attention_backend("reference"):
                expected = model(x)
        with torch.device("cpu"):  # A mode, too, but of tensors that are made.
            assert san.why_unfused(model, x) == []
    assert not torch.allclose(expected, plain)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", BOTH)
def test_nan_stays_in_its_image(kind):
    def gradient(backend):
        model, x = network(kind).eval(), images()
        x[1, 1, 3, 4] = torch.nan
        x.requires_grad_()
        with san.use_attention_backend(backend):
            (grad,) = torch.autograd.grad(model(x)[0].sum(), x)
        return grad

    got, expected = gradient("fused"), gradient("reference")
    assert expected[[0, 2]].isfinite().all()
    torch.testing.assert_close(
        got, expected, rtol=1e-8, atol=1e-9, equal_nan=True
    )


def test_a_copy_must_stand_alone():
    model = network("pair").eval()
    block = model.layer1[0]
    forward = block.forward
    block.forward = lambda x: forward(x) * 2
    with pytest.raises(
        ValueError, match=r"got layer1.0 with a forward that refers to"
    ):
        san.fold_for_inference(model)


@pytest.mark.parametrize("kind", BOTH)
def test_folded_networks_refuse_what_the_modules_refuse(kind):
    folded = san.fold_for_inference(network(kind).eval())
    x = images()
    for other, message in [
        (x.float(), "be torch.float64 as the network is, got torch.float"),
        (x[:, :2], "have 3 channels, got 2"),
        (x[0], r"be a tensor \[N, C, H, W\], got \[3, 20, 16\]"),
        (None, "got NoneType"),
        (x[:, :, :3], r"large enough for every pooling, got \[1, 8\] pixels"),
    ]:
        with pytest.raises(
            ValueError, match=f"fold_for_inference: images must .*{message}"
        ):
            folded(other)


@pytest.mark.parametrize("kind", BOTH)
def test_a_layer_of_a_folded_network_that_is_replaced(kind):
    folded, x = san.fold_for_inference(network(kind).eval()), images()
    layer = folded.network.layers.get_submodule("layer1_0")
    with torch.no_grad():
        expected = folded(x)
        layer.forward = lambda x: 0 * x
        assert not torch.allclose(folded(x), expected)
