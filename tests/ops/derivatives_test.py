"""Derivatives of aggregation, correlation and subtraction, in every way.

The oracle is san.ops.reference in plain PyTorch, through the same transforms.
Batches are in batches_test, what other operators refuse in
fused_derivatives_test.
"""

import itertools

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import (
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)

import cuda_kernels
from san import ops
from san.ops import reference
from tests.ops.windows import aggregation_inputs, random_tensor

WINDOW = {"kernel_size": 3, "padding": 1}
GEOMETRIES = [
    ((2, 3), WINDOW),
    ((2, 3), {**WINDOW, "padding_mode": "zeros"}),
    ((3, 2), {"kernel_size": 2, "padding": 1}),
    ((3, 4), {"kernel_size": 3, "padding": 1, "stride": 2}),
    ((3, 2), {"kernel_size": 3, "padding": 2, "dilation": 2}),
    ((1, 2), {"kernel_size": 5, "padding": 2}),
    ((1, 1), {**WINDOW, "padding_mode": "zeros"}),
]


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def image(*shape, seed=1):
    return random_tensor(*shape, seed=seed).detach()


def channels_last(tensor):
    tensor = tensor.detach().contiguous(memory_format=torch.channels_last)
    return tensor.requires_grad_()


def check_all_orders(function, inputs):
    assert gradcheck(
        function,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(
        function, inputs, check_fwd_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last])
@pytest.mark.parametrize(("size", "window"), GEOMETRIES)
def test_numeric_derivatives(size, window, layout):
    a = layout(random_tensor(2, 2, *size, seed=1))
    b = layout(random_tensor(2, 2, *size, seed=2))
    check_all_orders(lambda a, b: ops.subtraction2(a, b, **window), (a, b))
    _, weight = aggregation_inputs(size, **window)
    weight = weight.detach()[:, :1].requires_grad_()
    check_all_orders(
        lambda image, weight: ops.aggregation(image, weight, **window),
        (a, weight),
    )
    places = ops.aggregation(a, weight.detach(), **window)
    centres = layout(random_tensor(*places.shape, seed=4))
    check_all_orders(
        lambda a, b: ops.correlation(a, b, 1, **window), (centres, b)
    )


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_numeric_derivatives_of_the_gradients(needs):
    def gradients(*tensors):
        grads = torch.ops.san.aggregation_backward(
            *tensors, 3, 1, 1, 1, "reflect", *needs
        )
        return tuple(itertools.compress(grads, needs))

    weight = random_tensor(1, 1, 9, 6, seed=3)
    images = (random_tensor(1, 2, 2, 3, seed=seed) for seed in (1, 2))
    check_all_orders(gradients, (*images, weight))
    check_all_orders(
        lambda grad: torch.ops.san.subtraction2_backward(
            grad, 2, 3, True, 3, 1, 1, 1, "zeros"
        ),
        (random_tensor(1, 2, 9, 6),),
    )


# ---- Transforms of torch.func, nested.


def network(module):
    """Each operator, twice in a row and with other dependent arguments."""

    def function(x):
        relation = module.subtraction(x, **WINDOW)
        y = module.aggregation(x.cos(), relation.sin()[:, :1], **WINDOW)
        weight = module.subtraction2(x * x, y, **WINDOW).sin()
        weight = weight + module.correlation(y, x, 1, **WINDOW).cos()
        return module.aggregation(y, weight[:, 1:], **WINDOW)

    return function


def of_dual_number(function):
    def tangent(x):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, x.cos())
            return forward_ad.unpack_dual(function(dual)).tangent

    return tangent


# Each maps a function of an image to another one.
TRANSFORMS = {
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "vjp": lambda f: lambda x: vjp(f, x)[1](x.cos())[0],
    "grad": lambda f: grad(lambda x: (f(x) * x.cos()).sum()),
    "jacrev": lambda f: lambda x: jacrev(f)(x).sum((0, 1, 2, 3)),
    "jacfwd": lambda f: lambda x: jacfwd(f)(x).sum((4, 5, 6, 7)),
    "vmap": lambda f: lambda x: vmap(f)(torch.stack([x, 2 * x])).sum(0),
    "vmap in the middle": lambda f: (
        lambda x: vmap(f, 2, 1)(torch.stack([x, 2 * x], 2)).sum(1)
    ),
}
NESTINGS = [
    *itertools.product(TRANSFORMS, repeat=1),
    *itertools.product(TRANSFORMS, repeat=2),
    ("jvp", "jvp", "jvp"),
    ("grad", "jvp", "vmap"),
    ("grad", "vmap", "jvp"),
    ("jvp", "grad", "grad"),
    ("jvp", "vmap", "grad"),
    ("vjp", "jacfwd", "vmap"),
    ("vmap", "grad", "jvp"),
    ("vmap", "jvp", "grad"),
    ("vmap", "vmap", "jacrev"),
]


@pytest.mark.parametrize("nesting", NESTINGS, ids=" then ".join)
def test_nested_transforms(nesting):
    x = image(1, 2, 2, 2)
    function, oracle = network(ops), network(reference)
    for name in nesting:
        function = TRANSFORMS[name](function)
        oracle = TRANSFORMS[name](oracle)
    expected = oracle(x)
    assert expected.abs().max() > 1e-3
    assert_same(function(x), expected)


def test_hessian():
    x = image(1, 2, 2, 2)
    matrices = [
        hessian(lambda x, m=m: network(m)(x).square().sum())(x)
        for m in (ops, reference)
    ]
    assert_same(*matrices)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")
def test_linearize():
    x, tangent = image(2, 2, 3, 2), image(2, 2, 3, 2, seed=2)
    output, push = linearize(network(ops), x)
    expected = jvp(network(reference), (x,), (tangent,))
    assert_same((output, push(tangent)), expected)


@pytest.mark.parametrize("transform", [lambda f: f, TRANSFORMS["grad"]])
def test_dual_numbers(transform):
    x = image(2, 2, 3, 2)
    function, oracle = (transform(network(m)) for m in (ops, reference))
    expected = of_dual_number(oracle)(x)
    assert_same(of_dual_number(function)(x), expected)
    with torch.no_grad():
        assert_same(of_dual_number(function)(x), expected)


def test_gradient_of_a_tangent():
    def gradients(module):
        tensors = [
            tensor.detach().requires_grad_()
            for seed in (1, 2)
            for tensor in (
                random_tensor(2, 4, 5, 7, seed=seed),
                random_tensor(2, 2, 9, 35, seed=seed + 2),
            )
        ]
        input, weight, of_input, of_weight = tensors
        with forward_ad.dual_level():
            output = module.aggregation(
                forward_ad.make_dual(input, of_input),
                forward_ad.make_dual(weight, of_weight),
                **WINDOW,
            )
            primal, tangent = forward_ad.unpack_dual(output)
            loss = (primal * tangent.sin()).sum()
        return torch.autograd.grad(loss, tensors)

    assert_same(gradients(ops), gradients(reference))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("op", ["aggregation", "correlation", "subtraction2"])
def test_one_tangent_alone(op, which):
    inputs = list(aggregation_inputs(**WINDOW))
    if op != "aggregation":
        inputs[1] = random_tensor(2, 4, 5, 7, seed=5)
    groups = {"num_groups": 2} if op == "correlation" else {}

    def of_one(module):
        def function(tensor):
            tensors = [t.detach() for t in inputs]
            tensors[which] = tensor
            return getattr(module, op)(*tensors, **groups, **WINDOW)

        x = inputs[which].detach()
        return jvp(function, (x,), (x.cos(),))

    assert_same(of_one(ops), of_one(reference))


# ---- Other dtypes, other ways to run.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tangents_of_half_types(dtype):
    inputs = aggregation_inputs(**WINDOW, dtype=dtype)
    tangents = aggregation_inputs(**WINDOW, dtype=dtype)[::-1]
    tangents = [t.detach().flatten().flip(0) for t in tangents[::-1]]
    inputs = [t.detach() for t in inputs]
    tangents = [
        t.reshape(x.shape) for t, x in zip(tangents, inputs, strict=True)
    ]

    def push(module, dtype):
        return jvp(
            lambda *tensors: module.aggregation(*tensors, **WINDOW),
            tuple(t.to(dtype) for t in inputs),
            tuple(t.to(dtype) for t in tangents),
        )[1]

    got = push(ops, dtype)
    assert got.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        got.double(),
        push(reference, torch.float64),
        rtol=tolerance,
        atol=8 * tolerance,
    )


def test_tangents_under_autocast():
    inputs = [t.detach().float() for t in aggregation_inputs(**WINDOW)]

    def push(*tensors):
        return jvp(lambda *t: ops.aggregation(*t, **WINDOW), tensors, tensors)[
            1
        ]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        tangent = push(*inputs)
    assert tangent.dtype == torch.bfloat16
    assert torch.equal(tangent, push(*(t.bfloat16() for t in inputs)))


@pytest.mark.parametrize(
    "transform",
    [*(TRANSFORMS[n] for n in ("jvp", "grad", "vmap")), of_dual_number],
    ids=["jvp", "grad", "vmap", "dual numbers"],
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_transforms(transform, backend):
    torch.compiler.reset()
    x = image(1, 2, 3, 2)
    compiled = torch.compile(
        transform(network(ops)), fullgraph=True, backend=backend
    )
    assert_same(compiled(x), transform(network(reference))(x))


# ---- Work.


@pytest.fixture
def calls(monkeypatch):
    """What the kernels of aggregation are asked for, in order."""
    log = []
    forward = cuda_kernels.aggregation_forward
    backward = cuda_kernels.aggregation_backward

    def count_forward(*tensors, **window):
        log.append("output")
        forward(*tensors, **window)

    def count_backward(*tensors, **window):
        names = ("input", "weight")
        grads = zip(names, tensors[3:5], strict=True)
        log.append(" ".join(n for n, grad in grads if grad is not None))
        backward(*tensors, **window)

    monkeypatch.setattr(cuda_kernels, "aggregation_forward", count_forward)
    monkeypatch.setattr(cuda_kernels, "aggregation_backward", count_backward)
    return log


def test_a_batch_is_one_call(calls):
    x, weight = (t.detach() for t in aggregation_inputs(**WINDOW))
    vmap(
        grad(lambda x, w: ops.aggregation(x, w, **WINDOW).sum(), (0, 1)),
        (0, None),
    )(torch.stack([x, x]), weight)
    assert calls == ["output", "input weight"]


def test_second_derivatives_compute_what_is_needed(calls):
    x, weight = aggregation_inputs(**WINDOW)
    weight = weight.detach()
    output = ops.aggregation(x, weight, **WINDOW)
    seed = output.detach().requires_grad_()
    (of_x,) = torch.autograd.grad(output, x, seed, create_graph=True)
    torch.autograd.grad(of_x.sum(), seed)
    assert calls == ["output", "input", "output"]
    del calls[:]
    weight.requires_grad_()
    output = ops.aggregation(x, weight, **WINDOW)
    (of_x,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    torch.autograd.grad(of_x.sum(), weight)
    assert calls == ["output", "input weight", "weight"]


def test_tangents_compute_what_is_needed(calls):
    x, weight = (t.detach() for t in aggregation_inputs(**WINDOW))

    def gradient(x):
        output, pull = vjp(lambda x: ops.aggregation(x, weight, **WINDOW), x)
        return pull(output)[0]

    jvp(lambda w: ops.aggregation(x, w, **WINDOW), (weight,), (weight,))
    assert calls == ["output"] * 2
    del calls[:]
    jvp(gradient, (x,), (x,))
    assert calls == ["output", "output", "input", "input"]
