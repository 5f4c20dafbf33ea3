"""The attention blocks and the named parts that they are composed of.

A block transforms an image by 1x1 convolutions (phi, psi and beta), compares
pixels by a relation (`relations`), adds where they lie (`positions`), maps the
relation to weights (`mappings`), and sums beta with them. `block` is what all
share; `pairwise`, `patchwise` and `scalar` are the blocks. Where one fused
operator may do all that at once is decided in `fused`.
"""

from san.attention.block import Attention
from san.attention.mappings import Mapping
from san.attention.pairwise import PairwiseAttention
from san.attention.patchwise import PatchwiseAttention
from san.attention.positions import (
    AbsolutePosition,
    AxialEmbedding,
    Position,
    RelativePosition,
)
from san.attention.relations import (
    CliqueProduct,
    Concatenation,
    DotProduct,
    HadamardProduct,
    Patch,
    PatchConcatenation,
    Relation,
    StarProduct,
    Subtraction,
    Summation,
)
from san.attention.scalar import ScalarAttention

__all__ = [
    "AbsolutePosition",
    "Attention",
    "AxialEmbedding",
    "CliqueProduct",
    "Concatenation",
    "DotProduct",
    "HadamardProduct",
    "Mapping",
    "PairwiseAttention",
    "Patch",
    "PatchConcatenation",
    "PatchwiseAttention",
    "Position",
    "Relation",
    "RelativePosition",
    "ScalarAttention",
    "StarProduct",
    "Subtraction",
    "Summation",
]
