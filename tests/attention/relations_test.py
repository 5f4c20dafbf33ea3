"""Relations by their definition, and the steps that add another one."""

import pathlib
import re
import sys
import textwrap

import gin
import pytest
import torch

import san
from san.attention import PatchConcatenation, Relation, Subtraction
from san.jobs import config


def taps(image, kernel_size):
    """Every tap of every pixel's footprint, mirrored: [N, R, H, W, k, k]."""
    padding = kernel_size // 2
    height, width = image.shape[2:]
    rows, columns = (
        [mirrored(place, size) for place in range(-padding, size + padding)]
        for size in (height, width)
    )
    padded = image[:, :, rows][:, :, :, columns]
    return padded.unfold(2, kernel_size, 1).unfold(3, kernel_size, 1)


def mirrored(place, size):
    while size > 1 and not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place if size > 1 else 0


def subtraction(phi, psi, kernel_size):
    difference = phi[..., None, None] - taps(psi, kernel_size)
    return difference.flatten(4).permute(0, 1, 4, 2, 3).flatten(3)


def concatenation(phi, psi, kernel_size):
    patches = taps(psi, kernel_size).flatten(4).permute(0, 1, 4, 2, 3)
    return torch.cat([phi, patches.flatten(1, 2)], 1).flatten(2).unsqueeze(2)


# A relation, and what it is by its formula.
RELATIONS = [
    (Subtraction, subtraction),
    (PatchConcatenation, concatenation),
]


@pytest.mark.parametrize("size", [(5, 4), (2, 3), (1, 6)])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("backend", ["unfused", "reference"])
@pytest.mark.parametrize(("relation", "formula"), RELATIONS)
def test_by_its_formula(relation, formula, backend, kernel_size, size):
    generator = torch.Generator().manual_seed(0)
    phi, psi = torch.randn(
        2, 2, 3, *size, generator=generator, dtype=torch.float64
    )
    with san.use_attention_backend(backend):
        got = relation()(phi, psi, kernel_size)
    torch.testing.assert_close(got, formula(phi, psi, kernel_size))
    assert relation().channels(3, kernel_size**2) == got.shape[1]


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
    ("block", "relation", "places"),
    [
        (san.PairwiseAttention, PatchConcatenation, 9),
        (san.PatchwiseAttention, Subtraction, 1),
    ],
)
def test_a_relation_of_the_other_block(block, relation, places):
    message = rf"{block.__name__}: relation must be \[N, \d+, {places}, P\], as"
    with pytest.raises(ValueError, match=message):
        block(64, 3, relation=relation)(torch.randn(1, 64, 5, 4))


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
        ("subtraktion", r"one of subtraction .* nearest is 'subtraction'"),
        (None, "one of subtraction .* got None"),
        (Subtraction(), "must be a name or a class, .* got a made Subtraction"),
        (torch.nn.Identity, "must make a Relation, got Identity"),
    ],
)
def test_what_is_no_relation(relation, message):
    with pytest.raises(ValueError, match=f"^PairwiseAttention: .*{message}"):
        san.PairwiseAttention(32, 3, relation=relation)
