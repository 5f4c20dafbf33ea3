"""Entries of the pairwise attention's kernels on tensor cores.

Tiles and buffers as the launching code chooses them: cuda_kernels' pairwise
tensor_tile, where they are explained.
"""

import dataclasses
import math
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer
from tools.cuda_report.trips import Steps

_COLUMNS = 8  # pixels of a line of a tile


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a kernel keeps in shared memory.

    Attributes:
      copies: elements of a pixel of the halo, of each tensor that it copies.
      floats: of these pixels, in float32.
      exchanged: fragments of each warp.
    """

    copies: Callable[[Layer], tuple[int, ...]]
    floats: Callable[[Layer], tuple[int, ...]]
    exchanged: int


@dataclasses.dataclass(frozen=True)
class Tile:
    """The sizes of a launch, a block for each tile."""

    layer: Layer
    needs: Needs
    bytes: int  # of an element

    @property
    def warps(self) -> int:
        """Of a team."""
        return max(1, self.layer.G // 8)

    @property
    def teams(self) -> int:
        """Of a block."""
        return max(1, 4 // self.warps)

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps * self.teams

    @property
    def lines(self) -> int:
        """Of a tile."""
        return 2 * self.teams

    @property
    def blocks(self) -> int:
        """Of the grid."""
        side = self.layer.side
        return BATCH * -(-side // self.lines) * -(-side // _COLUMNS)

    def halo(self) -> tuple[float, float]:
        """Lines and columns of a halo, the mean."""
        return _reached(self.layer, self.lines), _reached(self.layer, _COLUMNS)

    def taps(self) -> float:
        """Offsets that a tile visits, the mean."""
        layer, reach, total = self.layer, self.layer.k // 2, 0
        tops = range(0, layer.side, self.lines)
        for top in tops:
            up = min(top + self.lines, layer.side) - 1
            down = layer.side - 1 - top
            total += min(reach, up) + min(reach, down) + 1
        return total / len(tops) * layer.k

    def warp_lines(self, lines: float) -> float:
        """Lines of a warp, of those that a block's warps share."""
        return lines / (self.warps * self.teams)

    def pixel_bytes(self) -> int:
        """Of a pixel of the halo, with what keeps banks apart."""
        used = self.bytes * sum(self.needs.copies(self.layer))
        used += 4 * sum(self.needs.floats(self.layer))
        vector = 16 if self.bytes == 2 else 32
        return (-(-used // vector) | 1) * vector

    def shared_bytes(self) -> int:
        """Of a block."""
        layer, around = self.layer, self.layer.k - 1
        lines, columns = self.lines + around, _COLUMNS + around
        halo = min(lines, layer.side) * min(columns, layer.side)
        fragment = 512 if self.bytes == 2 else 1024
        pieces = [
            (halo + 1) * self.pixel_bytes(),
            4 * lines * columns,
            4 * _COLUMNS * layer.k,
            4 * self.lines * layer.k,
            *[fragment * self.teams * self.warps * (self.warps > 1)]
            * self.needs.exchanged,
        ]
        return sum(-(-piece // 16) * 16 for piece in pieces)


def _reached(layer: Layer, size: int) -> float:
    """Pixels along an axis that a tile reaches in the image, the mean."""
    reach, starts = layer.k // 2, range(0, layer.side, size)
    return sum(
        min(start + size + reach, layer.side) - max(start - reach, 0)
        for start in starts
    ) / len(starts)


def _lines(
    what: str,
    lines: Callable[[Tile], float],
    count: Callable[[Tile], float],
    anchor: str = "shared store",
) -> tuple[Steps, Steps]:
    """for_each_line; where each warp has one line, that is no loop."""

    def steps(t: Tile) -> int:
        return -(-math.ceil(count(t)) // 32)

    return (
        Steps(
            what,
            lambda t: t.warp_lines(lines(t)),
            inner=(Steps(what, steps, anchor),),
            optional=True,
        ),
        Steps(
            what,
            lambda t: t.warp_lines(lines(t)) * steps(t),
            anchor,
            optional=True,
        ),
    )


def _copy(which: int) -> tuple[Steps, Steps]:
    """Of one of the tensors that the halo has."""

    def pieces(t: Tile) -> float:
        sizes = [t.bytes * n for n in t.needs.copies(t.layer)]
        sizes += [4 * n for n in t.needs.floats(t.layer)]
        size = sizes[which]
        return t.halo()[1] * (size // (16 if size % 16 == 0 else 8))

    return _lines("copy the halo", lambda t: t.halo()[0], pieces, "global load")


_BEGIN = (
    Steps(
        "pixel of zeros",
        lambda t: min(1, t.pixel_bytes() / 4 / t.threads),
        "shared store",
    ),
    *_lines(
        "places",
        lambda t: t.lines + t.layer.k - 1,
        lambda t: _COLUMNS + t.layer.k - 1,
    ),
    *_lines("count columns", lambda t: _COLUMNS, lambda t: t.layer.k),
    *_lines("count lines", lambda t: t.lines, lambda t: t.layer.k),
)


def _work(
    needs: Needs,
    elements: Callable[[Layer], float],
    flops: Callable[[Layer], float],
) -> Callable[[Layer, DataType, Device], Work]:
    def work(layer: Layer, data_type: DataType, _: Device) -> Work:
        tile = Tile(layer, needs, data_type.bytes)
        return Work(
            tile.blocks,
            tile.threads,
            tile.shared_bytes(),
            tile,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * layer.K * flops(layer),
        )

    return work


def _mapping_flops(layer: Layer) -> int:
    return 2 * layer.R * (layer.R + layer.G)


ENTRIES = (
    Entry(
        "pairwise.attend_tensor<Sizes<{type}, {G}>>",
        "forward",
        "pairwise core",
        {"forward": 1, "training": 1},
        (
            *_BEGIN,
            *_copy(0),
            Steps("taps", lambda t: t.taps(), "tensor", 0),
        ),
        _work(
            Needs(lambda a: (a.R + a.M,), lambda a: (), 4),
            lambda a: a.F + a.M,
            lambda a: _mapping_flops(a) + 2 * a.M,
        ),
        types=("bfloat16",),
    ),
)
