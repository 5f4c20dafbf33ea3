"""Tiles of the pairwise attention's kernels for published sizes.

As cuda_kernels' pairwise/fixed_tile.h has them; float32.
"""

import dataclasses

from tools.cuda_report.families.pairwise_tile import (
    THREADS,
    Needs,
    Tile,
    num_parts,
    padded,
    pitch_of,
)
from tools.cuda_report.layers import Layer

_WARPS = THREADS // 32


@dataclasses.dataclass(frozen=True)
class FixedTile(Tile):
    """A tile whose sizes the compiler knows, with helpers for its loops."""

    @property
    def rows(self) -> int:
        """Pairs of a chunk."""
        return self.chunk << self.bits

    def shared_bytes(self, needs: Needs) -> int:
        """Bytes of the buffers that a kernel needs."""
        layer = self.layer
        relation, groups = padded(layer.R), padded(layer.G)
        pieces = [self.rows] * 2 + [self.P] * 2 + [self.chunk * layer.R]
        pieces += [relation, self.P * relation]
        pieces += [self.rows * pitch_of(layer.R)] * needs.rows
        pieces += [relation * pitch_of(layer.R)] * (needs.matrices > 0)
        pieces += [groups * pitch_of(layer.R)] * (needs.matrices > 1)
        pieces += [self.P * layer.R] * needs.relation
        pieces += [self.P * layer.M] * needs.value
        pieces += [self.P * layer.G] * 3 * needs.softmax
        return sum(-(-4 * piece // 16) * 16 for piece in pieces)

    def steps(self, cells: float) -> float:
        """Steps of a warp where a block's threads share so many cells."""
        return cells / THREADS

    def outer_rows(self, height: int) -> float:
        """Rows that a thread has of an outer product."""
        return self.rows / self.outer(height, self.layer.R)[1]


def fixed_tile(layer: Layer, elements: int = 0) -> FixedTile:
    """The tile of a published layer; a block for each part, if any."""
    parts = num_parts(layer, elements) if elements else 0
    bits = (THREADS // layer.G).bit_length() - 1
    chunk = 9 if layer.R < 16 else 7
    return FixedTile(layer, bits, chunk, True, parts, elements)
