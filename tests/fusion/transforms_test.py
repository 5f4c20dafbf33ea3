"""Networks under torch.func and forward mode: the modules' own derivatives."""

import pytest
import torch
from torch.autograd import forward_ad

import san
from tests.fusion.networks import ATTENTIONS, images, network

FUNC = torch.func


def tangent_of(model, x):
    return FUNC.jvp(model, (x,), (torch.ones_like(x),))[1]


def dual_tangent_of(model, x):
    with forward_ad.dual_level():
        y = model(forward_ad.make_dual(x, torch.ones_like(x)))
        return forward_ad.unpack_dual(y).tangent


def dual_tangent_of_weights(model, x):
    weight = model.layer1[0].sam.conv2.weight
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight.detach(), torch.ones_like(weight))
        swapped = {"layer1.0.sam.conv2.weight": dual}
        y = FUNC.functional_call(model, swapped, (x,))
        return forward_ad.unpack_dual(y).tangent


def gradient_of(model, x):
    return FUNC.grad(lambda x: model(x).square().sum())(x)


def gradient_of_weights(model, x):
    def loss(parameters):
        y = FUNC.functional_call(model, parameters, (x,))
        return y.square().sum()

    return FUNC.grad(loss)(parameters_of(model))


def per_sample_gradients(model, x):
    def loss(parameters, image):
        y = FUNC.functional_call(model, parameters, (image[None],))
        return y.square().sum()

    each = FUNC.vmap(FUNC.grad(loss), (None, 0))
    return each(parameters_of(model), x)


def batched(model, x):
    return FUNC.vmap(lambda image: model(image[None])[0])(x)


def an_ensemble(model, x):
    stacked = {
        name: torch.stack([parameter, 1.1 * parameter])
        for name, parameter in parameters_of(model).items()
    }
    call = lambda p: FUNC.functional_call(model, p, (x,))  # noqa: E731
    return FUNC.vmap(call)(stacked)


def jacobian_backward(model, x):
    return FUNC.jacrev(lambda x: model(x).square())(x[:1])


def jacobian_forward(model, x):
    # Of one direction in the images, and of it alone.
    return FUNC.jacfwd(lambda t: model(x + t))(torch.zeros((), dtype=x.dtype))


def hessian_along_a_line(model, x):
    def loss(t):
        return model(x + t).square().sum()

    return FUNC.hessian(loss)(torch.tensor(0.1, dtype=x.dtype))


def hessian_vector_product(model, x):
    gradient = FUNC.grad(lambda x: model(x).square().sum())
    return FUNC.jvp(gradient, (x,), (torch.ones_like(x),))[1]


def functional_call(model, x):
    doubled = {k: 2 * v for k, v in parameters_of(model).items()}
    return FUNC.functional_call(model, doubled, (x,))


def parameters_of(model):
    return {k: v.detach() for k, v in model.named_parameters()}


TRANSFORMS = [
    tangent_of,
    dual_tangent_of,
    dual_tangent_of_weights,
    gradient_of,
    gradient_of_weights,
    per_sample_gradients,
    batched,
    an_ensemble,
    jacobian_backward,
    jacobian_forward,
    hessian_along_a_line,
    hessian_vector_product,
    functional_call,
]


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_of_a_network(transform, kind):
    model, x = network(kind).eval(), images(2)
    got = transform(model, x)
    with san.use_attention_backend("reference"):
        expected = transform(model, x)
    tensors = expected.values() if isinstance(expected, dict) else [expected]
    assert any(tensor.abs().max() > 1e-6 for tensor in tensors)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_forward_mode_is_the_difference_quotient(kind):
    model, x = network(kind).eval().requires_grad_(False), images(2)
    step = 1e-6
    quotient = (model(x + step * x) - model(x - step * x)) / (2 * step)
    tangent = FUNC.jvp(model, (x,), (x,))[1]
    torch.testing.assert_close(tangent, quotient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_forward_mode_in_training(kind):
    tangents = []
    for backend in ("fused", "reference"):
        model, x = network(kind), images(2)
        with (
            san.use_attention_backend(backend),
            forward_ad.dual_level(),
        ):
            y = model(forward_ad.make_dual(x, torch.ones_like(x) + x))
            tangents.append(forward_ad.unpack_dual(y).tangent)
    torch.testing.assert_close(*tangents, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_second_backward_pass_is_refused_or_right(kind):
    model, x = network(kind).eval(), images(2).requires_grad_()

    def twice():
        (grad,) = torch.autograd.grad(
            model(x).square().sum(), x, create_graph=True
        )
        return torch.autograd.grad(grad.square().sum(), x)[0]

    with pytest.raises(
        NotImplementedError, match=r'use_attention_backend\("unfused"\)'
    ):
        twice()
    with san.use_attention_backend("unfused"):
        got = twice()
    with san.use_attention_backend("reference"):
        torch.testing.assert_close(got, twice(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_batches_of_gradients(kind, is_training):
    def gradients(backend):
        model, x = network(kind).train(is_training), images(2)
        x.requires_grad_()
        with san.use_attention_backend(backend):
            logits = model(x).sum(0)
            seeds = torch.eye(len(logits), dtype=logits.dtype)
            return torch.autograd.grad(
                logits, [x, *model.parameters()], seeds, is_grads_batched=True
            )

    torch.testing.assert_close(
        gradients("fused"), gradients("reference"), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("transform", [gradient_of, batched, tangent_of])
def test_of_a_folded_network(transform, kind):
    model, x = network(kind).eval(), images(2)
    folded = san.fold_for_inference(model)
    if transform is tangent_of:
        with pytest.raises(
            NotImplementedError,
            match="stem: must not be differentiated in forward mode",
        ):
            transform(folded, x)
        return
    with san.use_attention_backend("reference"):
        expected = transform(model, x)
    got = transform(folded, x)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
