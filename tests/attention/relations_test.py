"""Relations by their definition, and the steps that add another one."""

import functools
import pathlib
import re
import sys
import textwrap

import gin
import pytest
import torch

import san
from san.attention import (
    Patch,
    PatchConcatenation,
    Relation,
    Subtraction,
    relations,
)
from san.attention.relations import PAIRWISE, PATCHWISE
from san.jobs import config
from tests.attention import by_hand

# A name, the class, and what it is by hand.
RELATIONS = [
    *((n, PAIRWISE[n], by_hand.PAIRWISE[n]) for n in PAIRWISE),
    *((n, PATCHWISE[n], by_hand.PATCHWISE[n]) for n in PATCHWISE),
    ("patch", Patch, by_hand.PATCHWISE["patch"]),
]


@pytest.mark.parametrize(
    ("size", "kernel_size"),
    [((5, 4), 1), ((5, 4), 3), ((2, 3), 3), ((1, 6), 3), ((5, 4), 7)],
)
@pytest.mark.parametrize("backend", ["unfused", "reference"])
@pytest.mark.parametrize(
    ("relation", "formula"),
    [relation[1:] for relation in RELATIONS],
    ids=[relation[0] for relation in RELATIONS],
)
def test_by_hand(relation, formula, backend, kernel_size, size):
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
        for _ in range(2)
    ]
    images = [image.requires_grad_() for image in images]
    expected = formula(*images, kernel_size)
    with san.use_attention_backend(backend):
        got = relation()(*images, kernel_size)
    torch.testing.assert_close(got, expected)
    weights = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    assert relation().channels(3, kernel_size**2) == got.shape[1]
    torch.testing.assert_close(
        torch.autograd.grad(got, images, weights, allow_unused=True),
        torch.autograd.grad(expected, images, weights, allow_unused=True),
    )


def test_identities():
    phi, psi = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    summation = relations.Summation()(phi, psi, 3)
    assert torch.equal(summation, Subtraction()(phi, -psi, 3))
    star = relations.StarProduct()(phi, psi, 3)
    clique = relations.CliqueProduct()(phi, psi, 3)
    centre = 4 * 9
    torch.testing.assert_close(clique[:, centre : centre + 9], star)
    dot = relations.DotProduct()(phi, psi, 3)
    torch.testing.assert_close(dot.transpose(1, 2), star)
    hadamard = relations.HadamardProduct()(phi, psi, 3)
    torch.testing.assert_close(hadamard.sum(1, keepdim=True), dot)
    half = relations.DotProduct(3)(phi, psi, 3)
    torch.testing.assert_close(half, hadamard)


@pytest.fixture
def steps():
    """The code blocks of CONTRIBUTING.md's steps for a new relation."""
    text = pathlib.Path("CONTRIBUTING.md").read_text()
    section = text.partition("### A new relation")[2].partition("\n### ")[0]
    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) <= 3
    blocks = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    code, settings = (textwrap.dedent(block) for block in blocks)
    yield code, settings
    gin.clear_config()


def test_the_steps_of_contributing(steps, tmp_path, monkeypatch):
    code, settings = steps
    (tmp_path / "own_relations.py").write_text(code)
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "own.gin"
    file.write_text("import own_relations\n" + settings)
    config.parse([str(file)])
    model = san.create_model(num_classes=3)
    block = model.layer1[0].sam
    assert type(block.relation).__name__ == "SquaredDifference"
    why = "relation is a SquaredDifference, not a Subtraction"
    assert f"layer1.0.sam: {why}" in san.why_unfused(model)
    assert why in repr(model)
    images = torch.randn(2, 3, 32, 32)
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    model.eval()
    with torch.no_grad():
        expected = model(images)
        with san.use_attention_backend("reference"):
            torch.testing.assert_close(model(images), expected)
        block.relation = Subtraction()
        assert not torch.allclose(model(images), expected)


@pytest.mark.parametrize(
    ("block", "relation", "rule"),
    [
        (san.PairwiseAttention, PatchConcatenation, "tap by tap"),
        (san.PairwiseAttention, relations.StarProduct, "tap by tap"),
        (san.PatchwiseAttention, Subtraction, "of whole footprints"),
    ],
)
def test_a_relation_of_the_other_block(block, relation, rule):
    message = (
        f"{block.__name__}: relation must be one {rule}, "
        f"got {relation.__name__}"
    )
    with pytest.raises(ValueError, match=message):
        block(64, 3, relation=relation)


class OfWholeFootprints(PatchConcatenation):
    is_by_tap = None


def test_a_relation_that_does_not_say_which_it_is():
    block = san.PairwiseAttention(64, 3, relation=OfWholeFootprints)
    message = r"relation must be \[N, 40, 9, P\], as its channels\(\) says, got"
    with pytest.raises(ValueError, match=message):
        block(torch.randn(1, 64, 5, 4))


@pytest.mark.parametrize("num_groups", [0, 3])
def test_groups_that_do_not_divide(num_groups):
    relation = functools.partial(relations.DotProduct, num_groups)
    with pytest.raises(ValueError, match=r"num_groups must divide .* 4, got"):
        san.PairwiseAttention(64, 3, relation=relation)


class Nothing(Relation):
    def channels(self, features, num_taps):
        return features

    def forward(self, phi, psi, kernel_size):
        return None


class Miscounted(Subtraction):
    def channels(self, features, num_taps):
        return features + 1


@pytest.mark.parametrize(
    ("relation", "got"),
    [
        (Nothing, "got NoneType of Nothing"),
        (Miscounted, r"\[N, 5, 9, P\], .* got \[1, 4, 9, 20\] of Miscounted"),
    ],
)
def test_a_relation_with_a_mistake(relation, got):
    block = san.PairwiseAttention(64, 3, relation=relation)
    with pytest.raises(ValueError, match=f"relation must be .*{got}"):
        block(torch.randn(1, 64, 5, 4))


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        ("subtraktion", r"one of summation, .* nearest is 'subtraction'"),
        (None, "one of summation, .* got None"),
        (Subtraction(), "must be a name or a class, .* got a made Subtraction"),
        (torch.nn.Identity, "must make a Relation, got Identity"),
    ],
)
def test_what_is_no_relation(relation, message):
    with pytest.raises(ValueError, match=f"^PairwiseAttention: .*{message}"):
        san.PairwiseAttention(32, 3, relation=relation)
