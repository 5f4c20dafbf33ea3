"""What table 9 of the paper rests on: which networks rotation cannot move.

Without positions, pairwise attention is a function of the set of pixels in the
footprint. The footprint is a square, and so is its reflection at the border: a
quarter turn or a flip of the image turns or flips the output, and no more. With
maps that every pooling divides evenly, the average at the end leaves logits
that do not change at all.
"""

import functools

import pytest
import torch

import san
from tests.networks import synthetic

# All symmetries of the square but the identity.
SYMMETRIES = {
    "90": lambda x: x.rot90(-1, (2, 3)),
    "180": lambda x: x.rot90(2, (2, 3)),
    "270": lambda x: x.rot90(1, (2, 3)),
    "rows": lambda x: x.flip(2),
    "columns": lambda x: x.flip(3),
    "diagonal": lambda x: x.transpose(2, 3),
    "antidiagonal": lambda x: x.rot90(2, (2, 3)).transpose(2, 3),
}
PAIRWISE = ("subtraction", "summation", "hadamard", "dot", "concatenation")
PATCHWISE = ("star", "clique", "concatenation")
POSITIONS = ("relative", "absolute")

without_position = functools.partial(san.PairwiseAttention, position="none")


def image(channels, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, channels, height, width)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def block(attention, kernel_size=3, **options):
    """A block in float64 whose weights differ from tap to tap."""
    torch.manual_seed(0)
    made = attention(32, kernel_size, **options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made


def distance(found, expected):
    """The largest difference, of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def from_commuting(made, x, turned):
    """How far a block's turned output is from its output of turned images."""
    return distance(made(turned(x)), turned(made(x)))


@pytest.mark.parametrize("backend", ["fused", "unfused", "reference"])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("relation", PAIRWISE)
def test_a_block_without_position_commutes(relation, symmetry, backend):
    made = block(without_position, relation=relation)
    with san.use_attention_backend(backend):
        for size in ((7, 7), (6, 9)):
            x = image(32, *size)
            assert from_commuting(made, x, SYMMETRIES[symmetry]) < 1e-12


@pytest.mark.parametrize("kernel_size", [1, 5, 7, 11])
def test_every_footprint_commutes_beyond_the_image_too(kernel_size):
    # At 11 the mirror at the border repeats.
    made = block(without_position, kernel_size)
    for turned in SYMMETRIES.values():
        assert from_commuting(made, image(32, 5, 4), turned) < 1e-12


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("relation", PAIRWISE)
def test_a_block_with_positions_does_not(relation, position, symmetry):
    made = block(san.PairwiseAttention, relation=relation, position=position)
    x = image(32, 7, 7)
    assert from_commuting(made, x, SYMMETRIES[symmetry]) > 1e-3


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("relation", PATCHWISE)
def test_a_patchwise_block_does_not(relation, symmetry):
    # Its mapping has a weight of its own for each tap.
    made = block(san.PatchwiseAttention, relation=relation)
    x = image(32, 7, 7)
    assert from_commuting(made, x, SYMMETRIES[symmetry]) > 1e-3


def network(attention):
    """Two stages and two poolings."""
    torch.manual_seed(0)
    made = san.SAN(
        attention=attention,
        num_blocks=(1, 1),
        kernel_sizes=(3, 5),
        widths=(32, 64),
        num_classes=10,
    )
    made.double().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".sam." in name:
                parameter.mul_(4)
    return made


@torch.no_grad()
def logits_moved(made, x, turned):
    """How far logits move when the images turn."""
    return distance(made(turned(x)), made(x))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("relation", PAIRWISE)
def test_logits_without_position_stay(relation, symmetry):
    made = network(functools.partial(without_position, relation=relation))
    assert logits_moved(made, image(3, 16, 16), SYMMETRIES[symmetry]) < 1e-12


@pytest.mark.parametrize(
    "attention",
    [
        san.PairwiseAttention,
        functools.partial(san.PairwiseAttention, position="absolute"),
        san.PatchwiseAttention,
    ],
)
def test_logits_of_other_networks_move(attention):
    made = network(attention)
    for turned in SYMMETRIES.values():
        assert logits_moved(made, image(3, 16, 16), turned) > 1e-4


def test_an_odd_map_moves_them():
    # Of 18, 9 are left, and the second pooling drops a row and a column of
    # those: others, once the image is turned.
    made = network(without_position)
    x = image(3, 18, 18)
    assert logits_moved(made, x, SYMMETRIES["180"]) > 1e-6
    # Flipping along the diagonal drops the same ones.
    assert logits_moved(made, x, SYMMETRIES["diagonal"]) < 1e-12


def test_a_convolution_moves_them():
    made = san.create_model("resnet26", num_classes=10).double().eval()
    moved = logits_moved(made, image(3, 32, 32), SYMMETRIES["90"])
    assert moved > 1e-4


def san10(attention):
    """SAN10 with the weights of the golden logits, in float32."""
    made = san.SAN(attention=attention, num_blocks=(2, 1, 2, 4, 1))
    made.load_state_dict(synthetic.state_dict(made, "pair"))
    return made.eval()


def test_san10_at_its_published_size():
    still, standard = san10(without_position), san10(san.PairwiseAttention)
    for name in ("90", "rows"):
        turned, x = SYMMETRIES[name], synthetic.image()
        assert logits_moved(still, x, turned) < 1e-5
        assert logits_moved(standard, x, turned) > 1e-3
