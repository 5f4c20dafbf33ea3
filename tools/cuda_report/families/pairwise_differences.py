"""Entries of the kernels for the first norm's statistics.

As cuda_kernels' pairwise/difference.cu launches them and has their loops.
"""

import dataclasses
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.families.pairwise_tile import THREADS, num_parts
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer
from tools.cuda_report.trips import Steps

_BAND_ROWS = 16
_WARPS = THREADS // 32


@dataclasses.dataclass(frozen=True)
class Line:
    """P columns of a band of rows by some channels, and how many such tiles."""

    layer: Layer
    blocks: int = 0
    each: int = 1  # elements of a vector

    @property
    def channels(self) -> int:
        """Side by side."""
        return min(32, self.layer.R)

    @property
    def P(self) -> int:  # noqa: N802
        """Columns of a tile."""
        return THREADS // self.channels

    @property
    def columns(self) -> int:
        """That the footprints of a tile reach."""
        return self.P + self.layer.k - 1

    @property
    def bands(self) -> int:
        """Of an image."""
        return -(-self.layer.side // _BAND_ROWS)

    @property
    def tiles(self) -> int:
        """Of the batch."""
        segments = -(-self.layer.side // self.P)
        images = self.layer.pixels // self.layer.image
        return images * self.bands * segments

    @property
    def rows(self) -> float:
        """Of a band, the mean."""
        return self.layer.side / self.bands

    @property
    def shares(self) -> int:
        """Blocks that share a tile's channels."""
        return -(-self.layer.R // self.channels)

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        lines = 2 * self.columns * self.channels
        tables = _BAND_ROWS + self.layer.k - 1 + self.columns
        counts = (self.P + _BAND_ROWS) * self.layer.k
        return 8 * (lines + 2 * THREADS + tables) + 4 * counts

    def items(self, count: float) -> float:
        """Steps of a warp where a block's threads share so many items."""
        return -(-count // 32) / _WARPS

    def sums_over_rows(self) -> float:
        """Steps of a warp over the columns of a row, the mean."""
        each = self.P // _WARPS
        firsts = range(0, self.P, each)
        return sum(-(-(self.columns - i) // self.P) for i in firsts) / _WARPS


def _taps(what: str, anchor: str, per_step: int) -> Steps:
    # Unrolled, where the compiler knows how many there are.
    return Steps(what, lambda t: t.layer.k, anchor, per_step, optional=True)


def _none(what: str) -> Steps:
    # What the compiler has for footprints of nothing.
    return Steps(what, lambda t: 0, "shared store", optional=True)


def _tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda t: t.tiles / t.blocks, inner=inner)


def _rows(*inner: Steps) -> Steps:
    return Steps("rows", lambda t: t.rows, inner=inner)


def _columns(loads: int) -> tuple[Steps, ...]:
    return (
        _none("sums of none"),
        Steps(
            "sums over rows",
            lambda t: t.sums_over_rows(),
            "shared store",
            inner=(_taps("of a column", "global load", loads),),
        ),
    )


def _zeros(what: str, trips: Callable[[Line], float]) -> Steps:
    return Steps(
        what,
        trips,
        inner=(Steps("of a column", lambda t: t.rows, "global store"),),
    )


_MIRRORED_COLUMNS = Steps(
    "mirrored columns", lambda t: t.items(t.columns), "shared store"
)

_MIRRORED_ROWS = Steps(
    "mirrored rows", lambda t: t.items(t.rows + t.layer.k - 1), "shared store"
)

_SUM = (
    _tiles(
        _MIRRORED_COLUMNS,
        _MIRRORED_ROWS,
        _rows(
            *_columns(1),
            _taps("sums over columns", "float64", 2),
        ),
    ),
    Steps("sum of threads", lambda t: t.P / _WARPS, "float64", 2),
)

_SPREAD = (
    _tiles(
        _MIRRORED_COLUMNS,
        _MIRRORED_ROWS,
        _none("counts of none"),
        Steps(
            "counts",
            lambda t: t.items((t.P + t.rows) * t.layer.k),
            "shared store",
            0,
            inner=(_taps("of a column or row", "special", 1),),
        ),
        _rows(
            *_columns(2),
            _taps("sums over columns", "shared load", 3),
        ),
        _zeros("zeros one by one", lambda t: 0),
        _zeros("zeros", lambda t: t.items(t.P * t.layer.M / t.each / t.shares)),
    ),
)


def _work_of_sums(layer: Layer, data_type: DataType, device: Device) -> Work:
    parts = num_parts(layer, 2 * layer.R)
    line = Line(layer, parts)
    moved = 2 * layer.R * layer.pixels * data_type.bytes
    return Work(
        parts * line.shares,
        THREADS,
        line.shared_bytes,
        line,
        moved + 16 * parts * layer.R,
        layer.pixels * layer.R * (6 * layer.k + 8),
    )


def _work_of_gradients(
    layer: Layer, data_type: DataType, device: Device
) -> Work:
    line = Line(layer, Line(layer).tiles, 16 // data_type.bytes)
    return Work(
        line.tiles * line.shares,
        THREADS,
        line.shared_bytes,
        line,
        (2 * layer.R + layer.F) * layer.pixels * data_type.bytes,
        layer.pixels * layer.R * (6 * layer.k + 10),
    )


ENTRIES = (
    Entry(
        "pairwise.sum_differences<{type}, {k}>",
        "statistics of the first norm",
        "pairwise core",
        {"training": 1},
        _SUM,
        _work_of_sums,
    ),
    Entry(
        "pairwise.spread_differences<{type}, {k}>",
        "gradient of first norm's statistics",
        "pairwise core",
        {"training": 1},
        _SPREAD,
        _work_of_gradients,
    ),
)
