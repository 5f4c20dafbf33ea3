"""Hooks that look and hooks that change, in every part of a network."""

import functools

import torch

from tests.fusion.changes import change, look, named

# Where a hook may be, in every part of the network.
PLACES = (
    "conv_in",
    "bn_in",
    "relu",
    "pool",
    "conv1",
    "layer1",
    "layer1.0",
    "layer1.0.bn1",
    "layer1.0.relu",
    "layer1.0.sam",
    "layer1.0.sam.conv1",
    "layer1.0.sam.conv2",
    "layer1.0.sam.conv3",
    "layer1.0.sam.relation",
    "layer1.0.sam.conv_w",
    "layer1.0.sam.conv_w.0",
    "layer1.0.sam.conv_w.1",
    "layer1.0.sam.conv_w.2",
    "layer1.0.sam.conv_w.5",
    "layer1.0.bn2",
    "layer1.0.conv",
    "bn1",
    "fc",
)


def _scaling_hook(place, model):
    model.get_submodule(place).register_forward_hook(
        lambda module, args, output: output * 0.7
    )


def _scaling_pre_hook(place, model):
    model.get_submodule(place).register_forward_pre_hook(
        lambda module, args: tuple(1.3 * a if _is_image(a) else a for a in args)
    )


def _is_image(value):
    return isinstance(value, torch.Tensor)


# The scale before a batch norm has no effect in training, so that these are
# not of the changes that must be seen there.
for _place in PLACES:
    named(f"hook on {_place}", functools.partial(_scaling_hook, _place))
    named(f"pre-hook on {_place}", functools.partial(_scaling_pre_hook, _place))


@look
def hooks_that_look(model):
    for module in model.modules():
        module.register_forward_hook(lambda *a: None)


@look
def hooks_with_keywords_always_called(model):
    for module in model.modules():
        module.register_forward_hook(
            lambda *a: None, with_kwargs=True, always_call=True
        )


@look
def backward_hooks_that_look(model):
    for module in (model.layer1[0].sam, model.layer1[0].conv, model.pool):
        module.register_full_backward_hook(lambda *a: None)
        module.register_full_backward_pre_hook(lambda *a: None)


@change
def a_backward_hook_that_scales(model):
    model.layer1[0].sam.conv_w.register_full_backward_hook(
        lambda module, grad_in, grad_out: tuple(2 * g for g in grad_in)
    )
