"""Folded networks on a GPU; run by tools/gpu_check, never by Bazel."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import san
from san.folding.layers import Norm, Stem
from tests.cuda.networks import small_san

# Of the largest output; half types round between any two layers.
_TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-3,
    torch.float16: 0.02,
    torch.bfloat16: 0.15,
}


def _network(kind):
    """A small SAN with random norms, in float64 on the CPU."""
    model = small_san(kind, (1, 2, 1, 1, 1))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model.double()


def _error(output, expected):
    difference = output.double().cpu() - expected
    return difference.abs().max() / expected.abs().max()


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", ["pair", "patch"])
def test_a_folded_network(kind, dtype):
    model = _network(kind)
    images = torch.randn(2, 3, 45, 52).to(dtype)
    folded = san.fold_for_inference(model).to("cuda", dtype)
    with torch.inference_mode():
        expected = model(images.double())
        output = folded(images.cuda())
    assert output.dtype == dtype
    assert _error(output, expected) < _TOLERANCES[dtype]


def _layers():
    """Each layer of an odd number of channels, and the size of its images."""
    torch.manual_seed(0)
    vectors = torch.randn(2, 70, dtype=torch.float64)
    weight = torch.randn(35, 3, dtype=torch.float64)
    return {
        "norm": (Norm(*vectors), 70),
        "pooled": (Norm(*vectors, pool=2), 70),
        "stem": (Stem(weight, vectors[0, :35]), 3),
    }


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("strides", ["channels_last", "contiguous_format"])
@pytest.mark.parametrize("name", _layers())
def test_a_layer(name, strides, dtype):
    layer, channels = _layers()[name]
    layer = layer.to(dtype)
    images = torch.randn(3, channels, 13, 21).to(dtype)
    images = images.contiguous(memory_format=getattr(torch, strides))
    # What the layer holds and is given has been rounded to dtype.
    expected = layer.double()(images.double())
    output = layer.to("cuda", dtype)(images.cuda())
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert _error(output, expected) < _TOLERANCES[dtype]


@pytest.mark.parametrize("name", _layers())
def test_no_images(name):
    layer, channels = _layers()[name]
    output = layer.float().cuda()(torch.empty(0, channels, 8, 6).cuda())
    assert output.shape[0] == 0


def test_a_norm_has_a_gradient():
    layer, channels = _layers()["pooled"]
    layer = layer.cuda()
    x = torch.randn(2, channels, 6, 4, dtype=torch.float64).cuda()
    expected = layer(x)
    output = layer(x.requires_grad_())
    output.sum().backward()
    torch.testing.assert_close(output, expected)
    assert x.grad.abs().max() > 0
