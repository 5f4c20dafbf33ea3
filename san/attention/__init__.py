"""The attention blocks and the named parts that they are composed of.

A block transforms an image by 1x1 convolutions (phi, psi and beta), compares
pixels by a relation (`relations`), adds where they lie (`positions`), maps the
relation to weights (`mappings`), and sums beta with them (`blocks`). Where one
fused operator may do all that at once is decided in `fused`.
"""

from san.attention.blocks import (
    Attention,
    PairwiseAttention,
    PatchwiseAttention,
)
from san.attention.mappings import Mapping
from san.attention.positions import RelativePosition
from san.attention.relations import (
    PatchConcatenation,
    Relation,
    Subtraction,
)

__all__ = [
    "Attention",
    "Mapping",
    "PairwiseAttention",
    "PatchConcatenation",
    "PatchwiseAttention",
    "Relation",
    "RelativePosition",
    "Subtraction",
]
