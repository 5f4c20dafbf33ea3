"""Tiles and buffers of the pairwise attention's kernels.

As the launching code chooses them: cuda_kernels' pairwise_tile and
pairwise_workspace, where the sizes are explained.
"""

import dataclasses
import functools

from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer

THREADS = 256
_WARPS = THREADS // 32


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a kernel keeps in shared memory beside what all do."""

    rows: int
    matrices: int
    relation: int
    value: bool = False
    softmax: bool = False


def padded(channels: int) -> int:
    """Channels that a buffer has room for."""
    return -(-channels // 4) * 4


def pitch_of(channels: int) -> int:
    """Channels that a row of a buffer takes."""
    elements = padded(channels)
    return elements + 4 if elements % 8 == 0 else elements


@dataclasses.dataclass(frozen=True)
class Tile:
    """The sizes of a launch: P pixels and `chunk` taps at a time."""

    layer: Layer
    bits: int
    chunk: int
    resident: bool
    parts: int = 0
    part_elements: int = 0

    @property
    def P(self) -> int:  # noqa: N802
        """Pixels of a tile."""
        return 1 << self.bits

    @property
    def rows(self) -> int:
        """Pairs of a chunk, padded."""
        return padded(self.chunk << self.bits)

    @property
    def tiles(self) -> int:
        """Of the batch."""
        return -(-self.layer.pixels // self.P)

    @property
    def blocks(self) -> int:
        """Of the grid."""
        return self.parts or self.tiles

    def shared_bytes(self, needs: Needs) -> int:
        """Bytes of the buffers that a kernel needs."""
        layer, rows = self.layer, self.rows
        relation = padded(layer.R)
        pieces = [
            8 * rows,
            4 * rows,
            4 * self.P * layer.k,
            4 * self.P * layer.k,
        ]
        pieces += [4 * relation, 4 * self.P * relation]
        pieces += [4 * rows * pitch_of(max(layer.R, layer.G))] * needs.rows
        if self.resident and needs.matrices > 0:
            pieces.append(4 * relation * pitch_of(layer.R))
        if self.resident and needs.matrices > 1:
            pieces.append(4 * padded(layer.G) * pitch_of(layer.R))
        pieces += [4 * self.P * layer.R] * needs.relation
        pieces += [4 * self.P * layer.M] * needs.value
        pieces += [4 * self.P * layer.G] * 3 * needs.softmax
        return sum(-(-piece // 16) * 16 for piece in pieces)

    def tiles_of_block(self) -> float:
        """Tiles that a block goes through, the mean."""
        return self.tiles / self.blocks

    def chunks(self) -> float:
        """Chunks of a tile, the mean over the batch.

        Lines of taps that lie outside the image for all of a tile are left out.
        """
        return _mean_chunks(self)

    def items(self, count: float) -> float:
        """Steps of a warp where a block's threads share so many items."""
        return -(-count // 32) / _WARPS

    def cell_rows(self, rows: float, columns: int) -> float:
        """Steps of a warp over the rows of for_each_cell."""
        return -(-rows * (1 << lane_bits(columns)) // 32) / _WARPS

    def product_items(self, columns: int) -> float:
        """Steps of a warp over the 4 x 4 results of a product."""
        groups = padded(columns) // 4
        bits = min(3, lane_bits(groups))
        return self.items(self.rows // 4 * (-(-groups >> bits) << bits))

    def outer(self, height: int, width: int) -> tuple[int, int]:
        """Items and segments of an outer product."""
        items = padded(height) // 4 * (padded(width) // 4)
        return items, max(1, THREADS // items)


@functools.lru_cache
def _mean_chunks(tile: Tile) -> float:
    layer, total = tile.layer, 0
    side, reach = layer.side, layer.k // 2
    count = min(layer.pixels, layer.image * tile.P) // tile.P
    for first in range(0, count * tile.P, tile.P):
        last = min(first + tile.P, layer.pixels) - 1
        lines = layer.k
        if first // layer.image == last // layer.image:
            highest = first % layer.image // side
            lowest = last % layer.image // side
            up, down = lowest, side - 1 - highest
            lines = min(up, reach) + 1 + min(down, reach)
        total += -(-lines * layer.k // tile.chunk)
    return total / count


def lane_bits(columns: int) -> int:
    """log2 of how many lanes stand side by side for so many columns."""
    return min(5, max(0, columns - 1).bit_length())


def choose_tile(
    layer: Layer, needs: Needs, device: Device, part_elements: int = 0
) -> Tile:
    """The largest tile whose buffers fit; a block for each part, if any."""
    parts = num_parts(layer, part_elements) if part_elements else 0
    most = 512
    while most > 32 and most * padded(layer.R) > 4096:
        most //= 2
    for resident in (True, False):
        rows = most
        while rows >= (16 if resident else 4):
            bits = 4
            while bits > 2 and rows >> bits < 8:
                bits -= 1
            while bits < 6 and layer.K << (bits + 1) <= rows:
                bits += 1
            for fewer in range(bits, -1, -1):
                chunks = -(-layer.K // max(1, rows >> fewer))
                tile = Tile(
                    layer,
                    fewer,
                    -(-layer.K // chunks),
                    resident,
                    parts,
                    part_elements,
                )
                if tile.shared_bytes(needs) <= device.most_shared:
                    return tile
            rows //= 2
    raise AssertionError("a published layer must fit")


def outer_elements(height: int, width: int) -> int:
    """Sums of an outer product that a part has."""
    items = padded(height) // 4 * (padded(width) // 4)
    return 16 * items * max(1, THREADS // items)


def num_parts(layer: Layer, elements: int) -> int:
    """Parts of sums that have so many elements."""
    waves = min(8, max(1, (1 << 23) // elements // 132))
    return min(132 * waves, -(-layer.pixels // 8))
