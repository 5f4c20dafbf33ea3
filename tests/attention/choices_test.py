"""Every choice that a block has, by hand: outputs, gradients, names, errors."""

import itertools

import numpy as np
import pytest
import torch

import san
from san.attention import AbsolutePosition, Position
from tests.attention import by_hand

PAIR, PATCH = san.PairwiseAttention, san.PatchwiseAttention
BY_HAND = {
    PAIR: by_hand.pairwise,
    PATCH: by_hand.patchwise,
    san.ScalarAttention: by_hand.scalar,
}
SHARINGS = ("distinct", "phi=psi", "phi=psi=beta")
# A block and what it is asked for: the rows of the paper's tables 4, 5, 6, 8
# and section 5.3, and some that no table has.
CHOICES = [
    *((PAIR, {"relation": name}) for name in by_hand.PAIRWISE),
    *((PATCH, {"relation": n}) for n in ("star", "clique", "concatenation")),
    *itertools.product((PAIR, PATCH), [{"num_layers": n} for n in (1, 3)]),
    *itertools.product((PAIR, PATCH), [{"sharing": s} for s in SHARINGS[1:]]),
    *((PAIR, {"position": name}) for name in ("none", "absolute")),
    (san.ScalarAttention, {}),
    (PAIR, {"relation": "summation", "sharing": "phi=psi"}),
    (PAIR, {"relation": "summation", "position": "none"}),
    (PAIR, {"relation": "dot", "sharing": "phi=psi=beta", "num_layers": 3}),
    (PATCH, {"relation": "star", "sharing": "phi=psi=beta", "num_layers": 1}),
]
# Choices for which one fused operator stands in.
FUSED = [
    {},
    {"relation": "summation"},
    {"relation": "subtraction"},
    {"relation": "concatenation"},
    {"sharing": "phi=psi"},
    {"position": "none"},
    {"relation": "summation", "sharing": "phi=psi"},
    {"relation": "summation", "position": "none"},
]


def named(choice):
    block, arguments = choice
    return "-".join([block.__name__, *map(str, arguments.values())])


def is_fused(block, choices):
    if block is san.ScalarAttention:
        return False
    other = PATCH if choices == {"relation": "concatenation"} else None
    return choices in FUSED and other in (None, block)


def made(block, choices, kernel_size=3):
    """A block of which every weight has an effect."""
    torch.manual_seed(0)
    model = block(64, kernel_size, **choices).double()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
            is_scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(noise.mul(0.2) + (1 if is_scale else 0))
    return model


def image(size=(5, 4)):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 64, *size, generator=generator, dtype=torch.float64)
    return x.requires_grad_()


@pytest.mark.parametrize("backend", ["fused", "unfused", "reference"])
@pytest.mark.parametrize(
    ("kernel_size", "size"), [(3, (5, 4)), (7, (5, 4)), (11, (6, 9))]
)
@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_by_hand(choice, kernel_size, size, backend):
    block, choices = choice
    model, x = made(block, choices, kernel_size), image(size)
    parameters = dict(model.named_parameters())
    expected = BY_HAND[block](parameters, x, kernel_size, **choices)
    with san.use_attention_backend(backend):
        got = model(x)
    torch.testing.assert_close(got, expected)
    weights = torch.randn_like(expected)
    inputs = [x, *parameters.values()]
    for name, actual, wanted in zip(
        ["x", *parameters],
        torch.autograd.grad(got, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(
            actual, wanted, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_says_fused_or_why_not(choice):
    block, choices = choice
    model = block(64, 3, **choices)
    why = san.why_unfused(model)
    assert (why == []) == is_fused(block, choices)
    assert model.backend() == ("unfused" if why else "fused")
    assert all(reason in repr(model) for reason in why)


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_evaluates_compiles_exports_and_folds(choice):
    block, choices = choice
    torch.manual_seed(0)
    model = san.SAN(lambda c, k: block(c, k, **choices), (1,), (3,), (64,), 5)
    model.eval()
    x = torch.randn(2, 3, 10, 8)
    with torch.no_grad():
        expected = model(x)
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)
        exported = torch.export.export(model, (x,), strict=False)
        torch.testing.assert_close(exported.module()(x), expected)
        if is_fused(block, choices):
            folded = san.fold_for_inference(model)
        else:
            with pytest.warns(UserWarning, match="left as it is: layer0_0: "):
                folded = san.fold_for_inference(model)
        torch.testing.assert_close(folded(x), expected)


@pytest.mark.parametrize("block", [PAIR, PATCH])
def test_what_is_shared_or_absent_has_no_entry(block):
    own = {"conv_w"} | ({"conv_p"} if block is PAIR else set())
    for sharing, convs in zip(
        SHARINGS,
        (("conv1", "conv2", "conv3"), ("conv1", "conv3"), ("conv1",)),
        strict=True,
    ):
        names = block(64, 3, sharing=sharing).state_dict()
        assert {n.split(".")[0] for n in names} == {*convs, *own}
    names = PAIR(64, 3, position="none").state_dict()
    assert not any(name.startswith("conv_p") for name in names)
    shared = block(64, 3, sharing="phi=psi=beta")
    assert shared.conv1.out_channels == shared.out_channels == 16


@pytest.mark.parametrize("block", [PAIR, PATCH])
@pytest.mark.parametrize("backend", ["fused", "unfused"])
def test_tied_is_standard_with_equal_weights(block, backend):
    tied = made(block, {"sharing": "phi=psi"})
    standard = made(block, {})
    state = tied.state_dict()
    for name in ("weight", "bias"):
        state[f"conv2.{name}"] = state[f"conv1.{name}"]
    standard.load_state_dict(state)
    x = image()
    with san.use_attention_backend(backend):
        torch.testing.assert_close(tied(x), standard(x))


def test_positions_that_say_nothing():
    """Absolute and relative ones without weights are none at all."""
    none = made(PAIR, {"position": "none"}).eval()
    for position in ("absolute", "relative"):
        other = made(PAIR, {"position": position}).eval()
        state = other.state_dict()
        for name, tensor in none.state_dict().items():
            if name in state and state[name].shape == tensor.shape:
                state[name] = tensor
        norms = ("weight", "bias", "running_mean", "running_var")
        for name in norms:
            of_none = none.conv_w[0].state_dict()[name]
            state[f"conv_w.0.{name}"][: len(of_none)] = of_none
        state["conv_w.2.weight"][:, :-2] = none.conv_w[2].weight
        state["conv_w.2.weight"][:, -2:] = 0
        other.load_state_dict(state)
        torch.testing.assert_close(other(image()), none(image()))


def test_a_shared_convolution_is_called_once():
    for sharing, calls in (("phi=psi", 1), ("phi=psi=beta", 1)):
        model, seen = PAIR(64, 3, sharing=sharing), []
        model.conv1.register_forward_hook(
            lambda *_, seen=seen: seen.append(None)
        )
        model(torch.randn(1, 64, 5, 4))
        assert len(seen) == calls


class Direction(Position):
    """Where the centre lies, at every tap."""

    def forward(self, transformed, kernel_size):
        taps = transformed.flatten(2).unsqueeze(2)
        return taps.expand(-1, -1, kernel_size**2, -1)


@pytest.mark.parametrize("position", [AbsolutePosition, Direction])
def test_a_position_of_ones_own(position):
    model = PAIR(64, 3, position=position)
    assert isinstance(model.position, position)
    assert model(torch.randn(2, 64, 5, 4)).shape == (2, 16, 5, 4)
    assert "position is a" in san.why_unfused(model)[0]


@pytest.mark.parametrize(
    ("block", "choices", "message"),
    [
        (PAIR, {"num_layers": 0}, "num_layers must be 1, 2 or 3, got 0"),
        (PATCH, {"num_layers": 4}, "num_layers must be 1, 2 or 3, got 4"),
        (PAIR, {"num_layers": True}, "num_layers must be 1, 2 or 3, got True"),
        (PAIR, {"num_layers": np.array([2])}, "num_layers must be 1, 2 or 3"),
        (PATCH, {"num_layers": 2.0}, "num_layers must be 1, 2 or 3, got 2.0"),
        (PAIR, {"sharing": "phi"}, "sharing must be one of distinct, phi=psi"),
        (PATCH, {"sharing": None}, "sharing must be one of distinct, phi=psi"),
        (PAIR, {"relation": "star"}, "relation must be one of summation, sub"),
        (PATCH, {"relation": "hadamard"}, "relation must be one of star, cli"),
        (PAIR, {"position": "rel"}, "position must be one of none, absolute"),
        (PAIR, {"position": None}, "position must be one of none, absolute"),
        (PAIR, {"position": dict}, "position must make a Position, got dict"),
        (
            PAIR,
            {"position": AbsolutePosition()},
            "position must be a name or a class, .* got a made AbsolutePosi",
        ),
        (PATCH, {"position": "relative"}, "position must be 'none', since the"),
        (
            PAIR,
            {"sharing": "phi=psi=beta", "relation_ratio": 16},
            "relation_ratio must be output_ratio, 4, where one transform",
        ),
        (
            san.ScalarAttention,
            {"channels_per_weight": 1},
            "channels_per_weight must be even, got 1",
        ),
    ],
)
def test_choices_that_do_not_go_together(block, choices, message):
    with pytest.raises(ValueError, match=f"^{block.__name__}: {message}"):
        block(64, 3, **choices)


def test_parts_know_what_they_lack():
    with pytest.raises(NotImplementedError, match="where the taps lie"):
        Position()(torch.zeros(1, 2, 3, 3), 3)
