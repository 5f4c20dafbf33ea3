"""What the operators that fuse layers say to derivatives beyond their own.

First derivatives in reverse mode, and batches, are right under torch.func;
forward mode and second derivatives are refused by name, never zero.
"""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jvp, vjp, vmap
from torch.utils import _pytree as pytree

from san.ops.norm_relu_core import Norm
from tests.ops.windows import random_tensor

UNFUSED = r'inside `with san.use_attention_backend\("unfused"\):`'


def values(*shape, seed=0):
    return random_tensor(*shape, seed=seed).detach()


def norm():
    statistics = (values(3, seed=s).abs() + 0.5 for s in range(4))
    return Norm(*statistics, torch.tensor(0.1).double(), 1e-5, "")


def calls():
    """Arguments of each operator."""
    x = values(2, 3, 4, 6)
    weights = [values(2, 3, seed=2), values(1, 3, seed=3)]
    biases = [values(2, seed=4), values(1, seed=5)]
    stem = values(5, 3, seed=2), values(5, seed=3)
    features = values(1, 10, 3, 4)
    affine = values(3, seed=6), values(3, seed=7)
    mapping = values(9, 3), values(3, 3, seed=1), values(2, 3, seed=2)
    hidden = (
        values(2, 2, 4, 5),
        values(2, 2, 4, 5, seed=1),
        values(1, 20, 1, 1, seed=2),
        values(1, 20, 1, 1, seed=3),
        values(3, 20, 1, 1, seed=4),
        3,
    )
    core = (
        values(2, 2, 4, 5, seed=1),
        values(2, 4, 4, 5, seed=2),
        values(2, 3, 3, 2, seed=3),
        values(1, 2, 3, 3, seed=4),
    )
    return {
        "channel_moments": (x,),
        "affine_relu": (x, *affine, 2),
        "pointwise": (x, *affine, values(1, 1, 3, 32, seed=2), biases[0], 2),
        "norm_relu": (x, *norm(), 2),
        "norm_relu_backward": (values(2, 3, 2, 3), x, *norm(), 2),
        "norm_relu_linear": (
            *(x, *norm(), 2, weights, biases, x.dtype),
            values(2, 3, 2, 3, seed=1),
        ),
        "norm_relu_linear_backward": (
            values(2, 3, 2, 3, seed=1),
            x,
            *norm(),
            2,
            torch.cat(weights).detach(),
            x.dtype,
        ),
        "stem": (x, *stem),
        "stem_backward": (values(2, 5, 2, 3), x, *stem, True),
        "pairwise_core": (features, *affine, *mapping, 3),
        "pairwise_core_recorded": (features, *affine, *mapping, 3),
        "pairwise_core_backward": (
            values(1, 4, 3, 4),
            values(1, 4, 3, 4, seed=1),
            values(1, 2, 3, 4),
            features,
            *affine,
            *mapping,
            3,
        ),
        "pairwise_moments": (features, *affine, values(3), 3),
        "pairwise_moments_backward": (
            values(9, 3),
            values(3, 3),
            features,
            *affine,
            values(3),
            3,
        ),
        "pairwise_difference_moments": (features, 3, 3),
        "pairwise_difference_moments_backward": (
            values(3),
            values(3),
            features,
            values(3),
            3,
        ),
        "patchwise_hidden": hidden,
        "patchwise_hidden_backward": (values(2, 3, 4, 5), *hidden),
        "patchwise_core": core,
        "patchwise_core_backward": (values(2, 4, 4, 5), *core),
    }


CALLS = calls()
CONSTANTS = {
    "norm_relu": ("mean", "variance", "share"),
    "norm_relu_linear": ("mean", "variance", "share"),
    "pairwise_moments": ("centre",),
}
# Those with a derivative.
DIFFERENTIABLE = [name for name in CALLS if f"{name}_backward" in CALLS]


def operator(name):
    """The operator as a function of its tensors alone, and these tensors."""
    op = getattr(torch.ops.san, name)
    leaves, spec = pytree.tree_flatten(CALLS[name])
    places = [i for i, t in enumerate(leaves) if isinstance(t, torch.Tensor)]

    def function(*tensors):
        arguments = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            arguments[place] = tensor
        outputs = op(*pytree.tree_unflatten(arguments, spec))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return function, [leaves[place] for place in places]


def varied(name):
    """Which of the operator's tensors may require a gradient."""
    arguments = getattr(torch.ops.san, name).default._schema.arguments
    named = [
        argument.name
        for argument, value in zip(arguments, CALLS[name], strict=True)
        for leaf in pytree.tree_leaves(value)
        if isinstance(leaf, torch.Tensor)
    ]
    constants = CONSTANTS.get(name, ())
    return tuple(i for i, name in enumerate(named) if name not in constants)


def loss_of(function):
    return lambda *tensors: sum(y.sin().sum() for y in function(*tensors))


def test_no_operator_is_forgotten():
    every = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("san::")
    }
    full = {"aggregation", "subtraction2"}
    full |= {f"{name}_backward" for name in full} | {"correlation"}
    full.add("pointwise_add_")  # Changes its argument: pointwise_test.
    assert every == set(CALLS) | full


@pytest.mark.parametrize("name", CALLS)
def test_forward_mode_is_refused(name):
    function, tensors = operator(name)
    folded = ("affine_relu", "pointwise")
    remedy = "before san.fold" if name in folded else UNFUSED
    message = f"^{name}: must not be differentiated in forward mode; .*{remedy}"
    for i, tensor in enumerate(tensors):

        def of_one(t, i=i):
            return function(*tensors[:i], t, *tensors[i + 1 :])

        with pytest.raises(NotImplementedError, match=message):
            jvp(of_one, (tensor,), (tensor,))
        for requires_grad in (False, True):
            leaf = tensor.clone().requires_grad_(requires_grad)
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(leaf, tensor)
                with pytest.raises(NotImplementedError, match=message):
                    of_one(dual)
                with pytest.raises(NotImplementedError, match=message):
                    vmap(of_one)(dual[None])


@pytest.mark.parametrize("name", CALLS)
def test_one_derivative_at_most(name):
    function, tensors = operator(name)
    varying = varied(name)
    leaves = [
        t.clone().requires_grad_(i in varying) for i, t in enumerate(tensors)
    ]
    loss = loss_of(function)(*leaves)
    message = "must not be differentiated"
    if name in DIFFERENTIABLE:
        inputs = [leaves[i] for i in varying]
        grads = torch.autograd.grad(loss, inputs, create_graph=True)
        loss = sum(g.sum() for g in grads)
        message = f"^{name}_backward: .*again; .*{UNFUSED}"
    with pytest.raises(NotImplementedError, match=message):
        loss.backward()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_torch_func(name):
    function, tensors = operator(name)
    varying = varied(name)
    leaves = [
        t.clone().requires_grad_(i in varying) for i, t in enumerate(tensors)
    ]
    expected = torch.autograd.grad(
        loss_of(function)(*leaves), [leaves[i] for i in varying]
    )
    gradient = grad(loss_of(function), varying)
    assert all(
        torch.equal(*pair)
        for pair in zip(gradient(*tensors), expected, strict=True)
    )
    pairs = [torch.stack([t, 1.25 * t]) for t in tensors]
    batched = vmap(gradient)(*pairs)
    for i in range(2):
        for got, one in zip(
            batched, gradient(*(p[i] for p in pairs)), strict=True
        ):
            assert torch.equal(got[i], one)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_of_a_gradient_is_refused(name):
    function, tensors = operator(name)
    varying = varied(name)

    def of_varying(*variables):
        every = list(tensors)
        for i, variable in zip(varying, variables, strict=True):
            every[i] = variable
        return function(*every)

    outputs, pull = vjp(of_varying, *(tensors[i] for i in varying))
    message = f"^{name}_backward: must not be differentiated in forward mode"
    with pytest.raises(NotImplementedError, match=message):
        jvp(pull, (outputs,), (outputs,))


@pytest.mark.parametrize("name", CALLS)
def test_batches(name):
    function, tensors = operator(name)
    every = range(len(tensors))
    for mapped in [(i,) for i in every] + [tuple(every)]:
        batch = [
            torch.stack([t, 1.25 * t, t], -1) if i in mapped else t
            for i, t in enumerate(tensors)
        ]
        dims = tuple(-1 if i in mapped else None for i in every)
        outputs = vmap(function, dims)(*batch)
        for k in range(3):
            expected = function(
                *(t[..., k] if i in mapped else t for i, t in enumerate(batch))
            )
            for got, one in zip(outputs, expected, strict=True):
                torch.testing.assert_close(got[k], one)


@pytest.mark.parametrize(
    ("name", "constant"),
    [(name, c) for name, names in CONSTANTS.items() for c in names],
)
def test_constants_require_no_gradient(name, constant):
    op = getattr(torch.ops.san, name)
    arguments = {
        a.name: value
        for a, value in zip(
            op.default._schema.arguments, CALLS[name], strict=True
        )
    }
    arguments[constant] = arguments[constant].clone().requires_grad_()
    with torch.no_grad():
        op(**arguments)
    with pytest.raises(NotImplementedError, match=f"{name}: {constant} must"):
        op(**arguments)
