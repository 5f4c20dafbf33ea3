"""Entries of the pairwise attention's kernels on tensor cores.

Tiles and buffers as the launching code chooses them: cuda_kernels' pairwise
tensor_tile, where they are explained.
"""

import dataclasses
import math
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.families.pairwise_tile import num_parts
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer
from tools.cuda_report.trips import Steps

_COLUMNS = 8  # pixels of a line of a tile


def has_kernel(layer: Layer, data_type: DataType, device: Device) -> bool:
    """Whether there is one on tensor cores that fits."""
    if not data_type.is_half and layer.G < 8:
        return False
    return all(
        Tile(layer, needs, data_type.bytes).shared_bytes() <= device.most_shared
        for needs in (_ATTEND, _BACKWARD_P, _BACKWARD_Q)
    )


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a kernel keeps in shared memory.

    Attributes:
      values: elements of a pixel of the halo, beside the relation's, of each
        tensor that it copies; the first with those.
      floats: of these pixels, in float32.
      exchanged: fragments of each warp, where a team has more than one.
      sheets: tiles of 16 x 16 elements for each warp, and for each two.
      weights: whether it has w1 and w2 there.
      table: whether it sums over the pairs of an offset.
      vectors: whether each thread has a sum there.
    """

    values: Callable[[Layer], tuple[int, ...]]
    floats: Callable[[Layer], tuple[int, ...]]
    exchanged: int
    sheets: tuple[int, int] = (0, 0)
    weights: bool = False
    table: bool = False
    vectors: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
    """The sizes of a launch, a block for each tile."""

    layer: Layer
    needs: Needs
    bytes: int  # of an element
    part_elements: int = 0

    @property
    def parts(self) -> int:
        """bfloat16 that an element of float32 is multiplied as."""
        return 3 if self.bytes == 4 else 1

    @property
    def copies(self) -> tuple[int, ...]:
        """Bytes of a pixel of each tensor that the halo has.

        In float32 those of the value are read where they are.
        """
        relation, layer = self.layer.R, self.layer
        if self.parts > 1:
            return (self.bytes * relation,)
        first, *others = self.needs.values(layer)
        floats = [4 * n for n in self.needs.floats(layer)]
        copied = [self.bytes * n for n in (relation + first, *others)]
        return (*copied, *floats)

    @property
    def has_table(self) -> bool:
        """Of sums; beside the largest weights there is no room for it."""
        crowded = self.needs.weights and self.parts > 1 and self.warps > 4
        return self.needs.table and not crowded

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
    def tiles(self) -> int:
        """Of the batch."""
        side = self.layer.side
        return BATCH * -(-side // self.lines) * -(-side // _COLUMNS)

    @property
    def blocks(self) -> int:
        """Of the grid."""
        if not self.part_elements:
            return self.tiles
        return min(self.tiles, num_parts(self.layer, self.part_elements))

    def tiles_of_block(self) -> float:
        """Tiles that a block goes through, the mean."""
        return self.tiles / self.blocks

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
        used = sum(self.copies)
        vector = 16 if self.bytes == 2 else 32
        return (-(-used // vector) | 1) * vector

    def shared_bytes(self) -> int:
        """Of a block."""
        layer, around = self.layer, self.layer.k - 1
        lines, columns = self.lines + around, _COLUMNS + around
        halo = min(lines, layer.side) * min(columns, layer.side)
        fragment, sheet = 512 * self.parts, 768 * self.parts
        across = max(16, layer.R)
        rows = across + 16 * -(-self.warps // 2) + 8 * (layer.G < 8)
        pieces = [
            (halo + 1) * self.pixel_bytes(),
            4 * lines * columns,
            4 * _COLUMNS * layer.k,
            4 * self.lines * layer.k,
            *[fragment * self.teams * self.warps * (self.warps > 1)]
            * self.needs.exchanged,
            2 * self.parts * rows * (across + 8) * self.needs.weights,
            *[sheet * self.teams * self.warps] * self.needs.sheets[0],
            *[sheet * self.teams * -(-self.warps // 2)] * self.needs.sheets[1],
            4 * self.threads * self.needs.vectors,
            4 * self.teams * layer.K * layer.R * self.has_table,
        ]
        return sum(-(-piece // 16) * 16 for piece in pieces)


class _NarrowTile(Tile):
    """Of the first stage's forward, where a thread has a pixel."""

    @property
    def lines(self) -> int:
        """Of a tile."""
        return self.threads // _COLUMNS

    @property
    def copies(self) -> tuple[int, ...]:
        """Bytes of a pixel of each tensor that the halo has."""
        return (self.bytes * (self.layer.R + self.layer.M),)


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
        if which >= len(t.copies):
            return 0
        size, at = t.copies[which], sum(t.copies[:which])
        # Those in float32 come by fours of an element of half types.
        vectors = which < 2 and size % 16 == at % 16 == 0
        return t.halo()[1] * (size // (16 if vectors else 8))

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
    part: Callable[[Layer], int] | None = None,
    sums: int = 0,
) -> Callable[[Layer, DataType, Device], Work | None]:
    """Launches on tiles.

    Args:
      needs: what the kernel keeps.
      elements: of features and the like that each pixel moves.
      flops: of each pair.
      part: elements of a part, in float64, if the launch sums in parts.
      sums: of the softmax, [N H W, G] in float32, that are moved.
    """

    def work(layer: Layer, data_type: DataType, device: Device) -> Work | None:
        if not has_kernel(layer, data_type, device):
            return None
        part_elements = part(layer) if part else 0
        tile = Tile(layer, needs, data_type.bytes, part_elements)
        moved = elements(layer) * data_type.bytes + 4 * sums * layer.G
        parts = tile.blocks if part else 0
        return Work(
            tile.blocks,
            tile.threads,
            tile.shared_bytes(),
            tile,
            layer.pixels * moved + 8 * parts * part_elements,
            layer.pixels * layer.K * flops(layer),
        )

    return work


def _mapping_flops(layer: Layer) -> int:
    return 2 * layer.R * (layer.R + layer.G)


def _moments_part(layer: Layer) -> int:
    return layer.K * layer.R + layer.R * layer.R


def _mapping_part(layer: Layer) -> int:
    return 2 * layer.R + _moments_part(layer) + layer.G * layer.R


_TAPS = Steps("taps", lambda t: t.taps(), "tensor", 0)
# In shared memory, or else in the part itself.
_CLEAR_TABLE = tuple(
    Steps(
        "clear table",
        lambda t: t.teams * t.layer.K * t.layer.R / t.threads,
        anchor,
        optional=True,
    )
    for anchor in ("shared store", "global store")
)
# The compiler may take the turns apart.
_TURNS = Steps("teams", lambda t: t.teams, "global store", 0, optional=True)
_WRITE_TABLE = Steps(
    "write table",
    lambda t: t.layer.K * t.layer.R / t.threads,
    "global store",
    optional=True,
)


def _tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda t: t.tiles_of_block(), inner=inner)


def _no_values(layer: Layer) -> tuple[int, ...]:
    return (0,)


def _values(layer: Layer) -> tuple[int, ...]:
    return (layer.M,)


def _no_floats(layer: Layer) -> tuple[int, ...]:
    return ()


_RELATION = Needs(_no_values, _no_floats, 2, vectors=True)
_ATTEND = Needs(_values, _no_floats, 4)
_BACKWARD_P = Needs(
    _values, _no_floats, 0, (2, 1), weights=True, table=True, vectors=True
)
_BACKWARD_Q = Needs(
    lambda a: (0, a.M), lambda a: (a.G, a.G), 0, (2, 1), weights=True
)
_GROUP = "pairwise core"
_TRAINING = {"training": 1}


def _wide(
    work: Callable[[Layer, DataType, Device], Work | None],
) -> Callable[[Layer, DataType, Device], Work | None]:
    """Not the first stage, which has a kernel of its own."""
    return lambda layer, data_type, device: (
        work(layer, data_type, device) if layer.G >= 8 else None
    )


def _work_of_narrow(
    layer: Layer, data_type: DataType, _: Device
) -> Work | None:
    if layer.G >= 8:
        return None
    tile = _NarrowTile(layer, _ATTEND, data_type.bytes)
    moved = (layer.F + layer.M) * data_type.bytes + 4 * layer.G
    flops = _mapping_flops(layer) + 2 * layer.M
    return Work(
        tile.blocks,
        tile.threads,
        tile.shared_bytes(),
        tile,
        layer.pixels * moved,
        layer.pixels * layer.K * flops,
    )


_LOAD_WEIGHTS = Steps(
    "load weights",
    lambda t: (t.layer.R + t.layer.G) * t.layer.R / 2 / t.threads,
    "shared store",
    0,
)

ENTRIES = (
    Entry(
        "pairwise.attend_tensor<Sizes<{exact}, {G}>>",
        "forward",
        _GROUP,
        {"forward": 1, "training": 1},
        (*_BEGIN, *_copy(0), _TAPS),
        _wide(
            _work(
                _ATTEND,
                lambda a: a.F + a.M,
                lambda a: _mapping_flops(a) + 2 * a.M,
                sums=1,
            )
        ),
    ),
    Entry(
        "pairwise.attend_narrow<Narrow<{type}>>",
        "forward",
        _GROUP,
        {"forward": 1, "training": 1},
        (
            *_BEGIN,
            *_copy(0),
            Steps("taps", lambda t: t.taps(), "ffma", 0),
        ),
        _work_of_narrow,
    ),
    Entry(
        "pairwise.attend_backward_p<Sizes<{exact}, {G}>>",
        "gradients of phi and the mapping",
        _GROUP,
        _TRAINING,
        (
            _LOAD_WEIGHTS,
            *_CLEAR_TABLE,
            _tiles(*_BEGIN, *_copy(0), _TAPS),
            _TURNS,
            _WRITE_TABLE,
        ),
        _work(
            _BACKWARD_P,
            lambda a: a.F + 2 * a.M + a.R,
            lambda a: 3 * _mapping_flops(a) + 2 * a.M,
            _mapping_part,
            sums=2,
        ),
    ),
    Entry(
        "pairwise.attend_backward_q<Sizes<{exact}, {G}>>",
        "gradients of psi and beta",
        _GROUP,
        _TRAINING,
        (
            *_BEGIN,
            *_copy(0),
            *_copy(1),
            *_copy(2),
            *_copy(3),
            _LOAD_WEIGHTS,
            _TAPS,
        ),
        _work(
            _BACKWARD_Q,
            lambda a: a.F + a.M + a.R + a.M,
            lambda a: 2 * _mapping_flops(a) + 4 * a.M,
            sums=2,
        ),
    ),
    Entry(
        "pairwise.sum_moments_tensor<Sizes<{exact}, {G}>>",
        "statistics of the second norm",
        _GROUP,
        _TRAINING,
        (
            *_CLEAR_TABLE,
            _tiles(*_BEGIN, *_copy(0), _TAPS),
            _TURNS,
            _WRITE_TABLE,
        ),
        _work(
            dataclasses.replace(
                _RELATION, exchanged=0, sheets=(4, 0), table=True, vectors=False
            ),
            lambda a: 2 * a.R,
            lambda a: 2 * a.R * a.R,
            _moments_part,
        ),
    ),
    Entry(
        "pairwise.spread_moments_tensor<Sizes<{exact}, {G}>, (Own)0>",
        "gradient of second norm's statistics, phi",
        _GROUP,
        _TRAINING,
        (_tiles(*_BEGIN, *_copy(0), _TAPS), _TURNS),
        _work(
            _RELATION,
            lambda a: 3 * a.R,
            lambda a: 2 * a.R * a.R,
            lambda a: 2 * a.R,
        ),
    ),
    Entry(
        "pairwise.spread_moments_tensor<Sizes<{exact}, {G}>, (Own)1>",
        "gradient of second norm's statistics, psi",
        _GROUP,
        _TRAINING,
        (_tiles(*_BEGIN, *_copy(0), _TAPS),),
        _work(_RELATION, lambda a: 3 * a.R + a.M, lambda a: 2 * a.R * a.R),
    ),
)
