"""Norm, ReLU and 1x1 convolutions as one operator against torch's layers."""

import pytest
import torch
from torch.nn import functional as F

from san.ops import norm_relu_linear
from tests.ops.norms import (
    SHAPES,
    TOLERANCE,
    assert_close,
    image,
    linear_parameters,
    make_norm,
    plain,
    plain_linear,
    run,
)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("outputs", [1, 7, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_relu_linear_equals_the_layers(shape, outputs, training):
    norm = make_norm(shape[1]).train(training)
    parameters = linear_parameters(shape, outputs)
    for inputs in (parameters, parameters[:2]):
        assert_close(
            run(norm_relu_linear, norm, image(shape), *inputs),
            run(plain_linear, norm, image(shape), *inputs),
            TOLERANCE[torch.float64],
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [s for s in SHAPES if min(s[2:]) > 1])
def test_pooled_equals_the_layers(shape, training):
    norm = make_norm(shape[1]).train(training)
    weight, bias, _ = linear_parameters(shape, 7)

    def pooled(x, norm, weight, bias):
        return norm_relu_linear(x, norm, weight, bias, pool=2)

    def layers(x, norm, weight, bias):
        kernel = weight[..., None, None]
        return F.conv2d(plain(2)(x, norm), kernel, bias)

    assert_close(
        run(pooled, norm, image(shape), weight, bias),
        run(layers, norm, image(shape), weight, bias),
        TOLERANCE[torch.float64],
    )


def several(x, norm, residual, *parameters):
    """norm_relu_linear with three weights side by side."""
    return norm_relu_linear(x, norm, parameters[:3], parameters[3:], residual)


def plain_several(x, norm, residual, *parameters):
    weights = [weight.flatten(1) for weight in parameters[:3]]
    bias = torch.cat(parameters[3:])
    return plain_linear(x, norm, torch.cat(weights), bias, residual)


def several_parameters(shape, dtype=torch.float64):
    """A residual, weights as matrices or convolutions, biases."""
    first, second, third = (
        linear_parameters(shape, outputs, dtype)[:2] for outputs in (3, 1, 8)
    )
    return [
        linear_parameters(shape, 12, dtype)[2],
        first[0],
        second[0][..., None, None],
        third[0],
        *(bias for _, bias in (first, second, third)),
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_several_weights_equal_one(shape, training):
    norm = make_norm(shape[1]).train(training)
    parameters = several_parameters(shape)
    assert_close(
        run(several, norm, image(shape), *parameters),
        run(plain_several, norm, image(shape), *parameters),
        TOLERANCE[torch.float64],
    )


def test_several_weights_compiled_and_in_autocast():
    norm = make_norm(8)
    x = image((2, 8, 6, 6), torch.float32)
    parameters = several_parameters(x.shape, torch.float32)
    expected = run(plain_several, norm, x, *parameters)
    compiled = torch.compile(several, fullgraph=True, backend="aot_eager")
    assert_close(run(compiled, norm, x, *parameters), expected, 2e-5)
    for layer in (several, compiled):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = run(layer, norm, x, *parameters)
        assert half[0].dtype == torch.float32  # That of the residual.
        assert all(t.dtype == torch.float32 for t in half[1:10])
        assert_close(half, expected, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("frozen", range(6))
def test_one_of_several_frozen(frozen):
    norm, x = make_norm(8).double(), image((2, 8, 6, 5))
    residual, *parameters = several_parameters(x.shape)
    for index, parameter in enumerate(parameters):
        parameter.requires_grad_(index != frozen)
    several(x, norm, residual, *parameters).square().sum().backward()
    grads = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    plain_several(x, norm, residual, *parameters).square().sum().backward()
    assert grads.pop(frozen) is parameters.pop(frozen).grad is None
    assert_close(grads, [parameter.grad for parameter in parameters], 1e-11)
