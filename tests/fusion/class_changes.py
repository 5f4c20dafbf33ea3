"""Subclasses of inner modules, and methods replaced on one of them."""

import types

from torch import nn

from san.networks.san import Bottleneck
from tests.fusion.changes import change, look


class Norm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class Conv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + x.mean()


class Relu(nn.ReLU):
    def forward(self, x):
        return super().forward(x) - 0.1


class Pool(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x) * 0.5


class Same(nn.Conv2d):
    pass


def same_weights(new, old):
    new.load_state_dict(old.state_dict())
    return new.double().train(old.training)


@change
def a_norm_of_ones_own(model):
    model.layer1[0].bn2 = same_weights(Norm(32), model.layer1[0].bn2)


@change
def a_convolution_of_ones_own(model):
    sam = model.layer1[0].sam
    sam.conv1 = same_weights(Conv(128, 8, 1), sam.conv1)


@look
def a_convolution_under_another_name(model):
    sam = model.layer1[0].sam
    sam.conv1 = same_weights(Same(128, 8, 1), sam.conv1)


@change
def a_relu_of_ones_own(model):
    model.layer1[1].relu = Relu()


@change
def a_pooling_of_ones_own(model):
    model.pool = Pool(2)


def subclassed(model, methods):
    """Gives layer1.0 an attention whose class has methods of its own."""
    old = model.layer1[0].sam
    kind = type(type(old).__name__, (type(old),), methods)
    model.layer1[0].sam = same_weights(kind(128, 7), old)


@change
def weights_overridden(model):
    base = type(model.layer1[0].sam)
    subclassed(model, {"weights": lambda self, x: base.weights(self, x) * 0.5})


@change
def forward_overridden(model):
    base = type(model.layer1[0].sam)
    subclassed(model, {"forward": lambda self, x: -base.forward(self, x)})


@look
def attend_overridden(model):
    # By modules nobody calls it.
    subclassed(model, {"attend": lambda self, features: features.sum()})


@change
def a_bottleneck_of_ones_own(model):
    class Halved(Bottleneck):
        def forward(self, x):
            return super().forward(x) * 0.5

    old = model.layer1[0]
    model.layer1[0] = same_weights(Halved(type(old.sam), 128, 7), old)


def replace(module, name, function):
    """Replaces a method of one module."""
    setattr(module, name, types.MethodType(function, module))


def forward(module, x):
    """The forward of its class."""
    return type(module).forward(module, x)


@change
def a_forward_on_a_convolution(model):
    conv = model.layer1[0].sam.conv2
    replace(conv, "forward", lambda self, x: forward(self, x).tanh())


@change
def a_forward_on_a_norm(model):
    norm = model.layer1[0].sam.conv_w[0]
    replace(norm, "forward", lambda self, x: forward(self, x) + 1)


@change
def a_forward_on_an_attention(model):
    sam = model.layer1[0].sam
    replace(sam, "forward", lambda self, x: forward(self, x) * 2)


@change
def weights_on_an_attention(model):
    sam = model.layer1[0].sam
    replace(sam, "weights", lambda self, x: type(self).weights(self, x) * 2)


@change
def a_forward_on_a_bottleneck(model):
    block = model.layer1[0]
    replace(block, "forward", lambda self, x: forward(self, x) * 2)


@change
def another_kind_of_convolving(model):
    conv = model.layer1[0].conv
    replace(
        conv,
        "_conv_forward",
        lambda self, x, weight, bias: nn.Conv2d._conv_forward(
            self, x, weight * 2, bias
        ),
    )
