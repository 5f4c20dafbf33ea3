"""Whatever people make of a network: it computes what its modules say."""

import functools
import warnings

import pytest
import torch

import san
from tests.fusion import (
    class_changes,
    hook_changes,
    layer_changes,
    weight_changes,
)
from tests.fusion.changes import CHANGES, LOOKS
from tests.fusion.networks import ATTENTIONS, images, network

# Importing them has filled CHANGES.
MODULES = class_changes, hook_changes, layer_changes, weight_changes
IMAGES = images()


def changed(kind, change, is_training):
    model = network(kind).train(is_training)
    torch.manual_seed(2)
    CHANGES[change](model)
    return model


def seen_in(model, images, backend):
    """All that a step shows, or the error that it ends in."""
    model, images = copy_of(model), images.clone().requires_grad_()
    calls = count_calls(model)
    with san.use_attention_backend(backend):
        try:
            logits = model(images)
            logits.square().sum().backward()
        except Exception as error:
            return type(error)
    return {
        "logits": logits.detach(),
        "images": images.grad,
        "gradients": {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        },
        "buffers": dict(model.named_buffers()),
        "calls": calls,
    }


def copy_of(model):
    """Its own twin; a weight that others make cannot be copied by torch."""
    return san.folding.copying.detached_copy("test", model)


def count_calls(model):
    """Counts how often each hook that is there already fires."""
    calls = {}
    for name, module in model.named_modules():
        for key, hook in list(module._forward_hooks.items()):
            module._forward_hooks[key] = counted(calls, name, hook)
    return calls


def counted(calls, name, hook):
    def call(*args):
        calls[name] = calls.get(name, 0) + 1
        return hook(*args)

    return call


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("change", CHANGES)
def test_computes_what_its_modules_say(change, kind, is_training):
    model = changed(kind, change, is_training)
    got = seen_in(model, IMAGES, "fused")
    expected = seen_in(model, IMAGES, "reference")
    if isinstance(expected, type):
        assert isinstance(got, type)
        return
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("change", sorted(CHANGES.keys() - LOOKS))
def test_the_change_has_an_effect(change, kind):
    for is_training in (False, True):
        got = seen_in(changed(kind, change, is_training), IMAGES, "fused")
        if isinstance(got, type) or not alike(
            got, of_unchanged(kind, is_training)
        ):
            return
    pytest.fail("nothing changed")


@functools.cache
def of_unchanged(kind, is_training):
    return seen_in(network(kind).train(is_training), IMAGES, "fused")


def alike(got, expected):
    keys = "logits", "images"
    return all(torch.allclose(got[key], expected[key]) for key in keys)


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("change", CHANGES)
def test_folds_to_the_same_or_says_why_not(change, kind):
    model = changed(kind, change, is_training=True)
    expected = outputs(copy_of(model).eval(), "reference")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            folded = san.fold_for_inference(model)
    except ValueError as error:
        assert str(error).startswith("fold_for_inference: model must")
        return
    got = outputs(folded, "fused")
    if isinstance(expected, type):
        assert isinstance(got, type)
        assert said
        return
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def outputs(model, backend):
    with san.use_attention_backend(backend), torch.no_grad():
        try:
            return model(IMAGES)
        except Exception as error:
            return type(error)
