"""Weights made of others, shared or frozen, and other kinds of tensors."""

import torch
import torch.nn.utils.prune as prune
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tests.fusion.changes import change, look


class Adapter(nn.Module):
    """A low-rank adapter around a 1x1 convolution."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 2, 1, bias=False).double()
        self.up = nn.Conv2d(2, base.out_channels, 1, bias=False).double()

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias


@change
def adapters_of_the_transformations(model):
    for name in ("conv1", "conv2", "conv3"):
        sam = model.layer1[0].sam
        setattr(sam, name, Adapter(sam.get_submodule(name)))


@change
def adapters_of_the_expansion_and_the_mapping(model):
    block = model.layer1[0]
    block.conv = Adapter(block.conv)
    block.sam.conv_w[2] = Adapter(block.sam.conv_w[2])
    model.conv1 = Adapter(model.conv1)


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


@change
def a_parametrization(model):
    parametrize.register_parametrization(
        model.layer1[0].sam.conv3, "weight", Double()
    )


@change
def a_parametrization_of_a_norm(model):
    parametrize.register_parametrization(
        model.layer1[0].bn1, "weight", Double()
    )


@change
def a_weight_norm(model):
    conv = parametrizations.weight_norm(model.layer1[0].conv)
    conv.parametrizations.weight.original0.data *= 2


@change
def an_old_weight_norm(model):
    nn.utils.weight_norm(model.layer1[0].sam.conv2)
    model.layer1[0].sam.conv2.weight_g.data *= 2


@change
def a_spectral_norm(model):
    parametrizations.spectral_norm(model.layer1[0].conv)


@change
def an_old_spectral_norm(model):
    nn.utils.spectral_norm(model.layer1[0].conv)


@change
def pruned(model):
    prune.l1_unstructured(model.layer1[0].sam.conv3, "weight", 0.5)
    prune.ln_structured(model.layer1[0].conv, "weight", 0.5, n=2, dim=0)


@change
def pruned_for_good(model):
    prune.l1_unstructured(model.layer1[0].sam.conv3, "weight", 0.5)
    prune.remove(model.layer1[0].sam.conv3, "weight")


@change
def a_weight_that_is_no_parameter(model):
    conv = model.layer1[0].sam.conv1
    weight = conv.weight.detach() * 2
    del conv.weight
    conv.weight = weight


@look
def frozen_weights(model):
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)


@change
def shared_transformations(model):
    model.layer1[0].sam.conv2 = model.layer1[0].sam.conv1


@change
def shared_bottlenecks(model):
    model.layer1[1] = model.layer1[0]


# ---- Kinds of tensors. What torch's layers refuse is refused.


@change
def one_convolution_of_another_dtype(model):
    model.layer1[0].sam.conv2.float()


@change
def one_norm_of_another_dtype(model):
    model.layer1[0].bn1.float()


@change
def one_layer_on_another_device(model):
    model.layer1[0].bn1.to("meta")


@look
def weights_in_channels_last(model):
    model.to(memory_format=torch.channels_last)
