"""How the kernels of aggregation and subtraction2 divide their work.

Tilings as the launching code chooses them (cuda_kernels, window_ops).
"""

import dataclasses
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer

_USUAL_THREADS, _MOST_THREADS, _USUAL_COLUMNS = 256, 512, 64
_LANES = 32


def width(layer: Layer) -> int:
    """Adjacent outputs of a thread: as many as divide a row of the image."""
    return next(w for w in (4, 2, 1) if not layer.side % w)


def _parts(count: int, step: int) -> int:
    return -(-count // step)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The sizes of a launch: tiles of `rows` x `columns` positions."""

    layer: Layer
    extent: int  # of the grid of positions, each way
    row_parts: int
    column_parts: int
    units: int
    units_per_block: int = 1

    @property
    def rows_of_thread(self) -> int:
        """Positions of a thread, one below the other."""
        return 7 if width(self.layer) == 1 else 2

    @property
    def thread_rows(self) -> int:
        """Threads of a tile, one below the other."""
        return _parts(_parts(self.extent, self.rows_of_thread), self.row_parts)

    @property
    def thread_columns(self) -> int:
        """Threads of a tile, side by side."""
        return _parts(_parts(self.extent, width(self.layer)), self.column_parts)

    @property
    def rows(self) -> int:
        """Positions of a tile, one below the other."""
        return self.thread_rows * self.rows_of_thread

    @property
    def columns(self) -> int:
        """Positions of a tile, side by side."""
        return self.thread_columns * width(self.layer)

    @property
    def threads(self) -> int:
        """Of a unit."""
        return self.thread_rows * self.thread_columns

    @property
    def tiles(self) -> int:
        """Of a unit."""
        return self.row_parts * self.column_parts

    @property
    def blocks(self) -> int:
        """Of the grid."""
        return -(-self.units // self.units_per_block) * self.tiles

    @property
    def source(self) -> tuple[int, int]:
        """Rows and columns of a tile's source."""
        reach = self.layer.k - 1
        return self.rows + reach, self.columns + reach

    def elements(self, planes: int, padded: bool) -> int:
        """Of a unit in shared memory: the source, and sums if it is padded."""
        rows, columns = self.source
        step = width(self.layer)
        run = -(-columns // step)
        while step > 1 and run % 8 != 8 // step:
            run += 1
        sums = self.rows * self.columns if padded else 0
        return planes * (rows * step * run + sums)

    def sources(self) -> float:
        """Steps of a thread that copies a tile's source."""
        rows, columns = self.source
        return -(-rows * columns // self.threads)

    def tables(self) -> float:
        """Steps of a thread that finds a tile's sources."""
        return -(-sum(self.source) // (self.units_per_block * self.threads))

    def mirrored_rows(self) -> float:
        """Rows of a thread that adds mirror images along them."""
        return self.rows / self.threads

    def mirrored_columns(self) -> float:
        """Columns likewise."""
        return self.columns / self.threads

    def padding(self) -> float:
        """Positions in the padding along a row or column of a tile."""
        parts = (self.row_parts + self.column_parts) / 2
        return (self.layer.k - 1) / parts

    def tap_rows(self) -> float:
        """Rows of taps by which outputs send to a row: to most of a warp's."""
        reach = self.layer.k - 1
        step = self.rows_of_thread
        # Threads of a warp, one below the other, do rows that far apart.
        others = range(0, -(-_LANES // self.thread_columns) * step, step)

        def taps(row: int) -> int:
            return min(row, reach, self.extent - 1 - row) + 1

        return (
            sum(
                max(taps(min(row + other, self.extent - 1)) for other in others)
                for row in range(self.extent)
            )
            / self.extent
        )

    def accesses(self) -> float:
        """Of a thread to pixels of a channel."""
        return _parts(self.layer.side // self.row_parts, self.thread_rows)


def _even_units(units: int, tiles: int, most: int, device: Device) -> int:
    def fullest(count: int) -> int:
        blocks = -(-units // count) * tiles
        return -(-blocks // device.multiprocessors) * count

    # Of equals the largest.
    return min(range(most, most // 2, -1), key=fullest)


def _tiling(
    layer: Layer, device: Device, units: int, padded: bool, planes: int
) -> tuple[Tiling, int]:
    """The tiling of a launch and its bytes of shared memory."""
    reach = layer.k - 1
    extent = layer.side + (reach if padded else 0)
    least = layer.k if padded else 1
    tile = Tiling(layer, extent, 1, 1, units)

    def most_parts(step: int) -> int:
        return max(1, -(-extent // step) // ((least + 2 * (step - 1)) // step))

    most_rows = most_parts(tile.rows_of_thread)
    most_columns = most_parts(width(layer))
    column_parts = min(-(-tile.thread_columns // _USUAL_COLUMNS), most_columns)
    tile = dataclasses.replace(tile, column_parts=column_parts)
    usual_rows = max(1, _USUAL_THREADS // tile.thread_columns)
    row_parts = min(-(-tile.thread_rows // usual_rows), most_rows)
    while True:
        tile = Tiling(layer, extent, row_parts, column_parts, units)
        of_unit = 4 * tile.elements(planes, padded)
        table = -(-sum(tile.source) // 4) * 16
        most = device.most_shared // 2
        if tile.threads <= _MOST_THREADS and table + of_unit <= most:
            side_by_side = min(
                _USUAL_THREADS // tile.threads,
                units // (2 * device.multiprocessors),
                most // (table + of_unit),
            )
            tile = dataclasses.replace(
                tile,
                units_per_block=_even_units(
                    units, tile.tiles, max(1, side_by_side), device
                ),
            )
            return tile, table + tile.units_per_block * of_unit
        if row_parts < most_rows:
            row_parts = min(2 * row_parts, most_rows)
        else:
            column_parts = min(2 * column_parts, most_columns)


def tiled(
    units: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
    planes: int,
    padded: bool = False,
) -> Callable[[Layer, DataType, Device], Work]:
    """The launches of a kernel that does tiles.

    Args:
      units: grids of positions.
      elements: moved of each pixel.
      flops: of each pixel.
      planes: values of a position in shared memory.
      padded: whether positions are those of the padded image.
    """

    def work(layer: Layer, data_type: DataType, device: Device) -> Work:
        tile, shared = _tiling(layer, device, units(layer), padded, planes)
        return Work(
            tile.blocks,
            tile.units_per_block * tile.threads,
            shared,
            tile,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * flops(layer),
        )

    return work


# ---- Small images, which have a kernel of their own for a gradient.

_SMALL = (7, 14, 28)
_STRIP = 7  # rows of outputs of a thread
_THREADS_OF_SMALL = 112


@dataclasses.dataclass(frozen=True)
class Small:
    """The sizes of a launch whose threads own strips of outputs."""

    layer: Layer

    @property
    def strips(self) -> int:
        """Of a unit."""
        return self.layer.side // _STRIP

    @property
    def threads(self) -> int:
        """Of a unit."""
        return self.layer.side * self.strips

    @property
    def positions(self) -> int:
        """Sums of a unit in shared memory."""
        reach = self.layer.k - 1
        return self.strips * (_STRIP + reach) * (self.layer.side + reach)

    def accesses(self) -> float:
        """Of a thread to pixels of a channel."""
        return self.layer.image / width(self.layer) / self.threads

    def shared_sums(self) -> float:
        """Of two strips, that a thread adds."""
        reach = self.layer.k - 1
        rows = (self.strips - 1) * reach
        return rows * (self.layer.side + reach) / self.threads

    def mirrored_rows(self) -> float:
        """Rows of a thread that adds mirror images along them."""
        return self.layer.side / self.threads

    def mirrored_columns(self) -> float:
        """Columns likewise."""
        return (self.layer.side + self.layer.k - 1) / self.threads

    def padding(self) -> float:
        """Positions in the padding along a row or column."""
        return self.layer.k - 1


def _is_small(layer: Layer) -> bool:
    return layer.k == 7 and layer.side in _SMALL


def small_work(
    units: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
    values: int,
) -> Callable[[Layer, DataType, Device], Work | None]:
    """The launches of a kernel with `values` of each position and output."""

    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if not _is_small(layer):
            return None
        small = Small(layer)
        side_by_side = _THREADS_OF_SMALL // small.threads
        of_unit = values * (small.positions + layer.image)
        return Work(
            -(-units(layer) // side_by_side),
            side_by_side * small.threads,
            side_by_side * 4 * of_unit,
            small,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * flops(layer),
        )

    return work


def unless_small(
    work: Callable[[Layer, DataType, Device], Work],
) -> Callable[[Layer, DataType, Device], Work | None]:
    """The launches without those of small images."""

    def other(layer: Layer, data_type: DataType, device: Device) -> Work | None:
        return None if _is_small(layer) else work(layer, data_type, device)

    return other


# ---- Gradients of subtraction2, by lines of lanes.

_LINE_ROWS = 7  # of a band


@dataclasses.dataclass(frozen=True)
class Lines:
    """The sizes of a launch whose lanes share rows of outputs."""

    layer: Layer

    @property
    def lanes(self) -> int:
        """Of a line."""
        return self.layer.side // width(self.layer)

    @property
    def bands(self) -> int:
        """Of a plane, a line each."""
        return -(-self.layer.side // _LINE_ROWS)

    @property
    def per_warp(self) -> int:
        """Lines of a warp."""
        return _LANES // self.lanes

    @property
    def elements(self) -> int:
        """Sums of a plane in shared memory."""
        reach, step = self.layer.k - 1, width(self.layer)
        pitch = -(-(self.layer.side + reach) // step) * step
        rows = self.bands * _LINE_ROWS + reach
        return -(-rows * pitch // 4) * 4

    def rows(self) -> float:
        """Rows of a thread."""
        return _LINE_ROWS

    def mirrored_rows(self) -> float:
        """Rows of a thread that adds mirror images along them."""
        return self.mirrored_columns() + (self.layer.k - 1) / self._threads

    def mirrored_columns(self) -> float:
        """Columns likewise."""
        return self.layer.side / self._threads

    @property
    def _threads(self) -> int:
        return self.bands * self.lanes

    def padding(self) -> float:
        """Positions in the padding along a row or column."""
        return self.layer.k - 1


def in_lines(
    units: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
) -> Callable[[Layer, DataType, Device], Work]:
    """The launches of a kernel that does lines; arguments as those of tiled."""

    def work(layer: Layer, data_type: DataType, device: Device) -> Work:
        lines = Lines(layer)
        planes = units(layer)
        most = min(
            _USUAL_THREADS // _LANES * lines.per_warp // lines.bands,
            device.most_shared // 2 // (4 * lines.elements),
        )
        step = max(1, lines.per_warp // lines.bands)
        side_by_side = step * _even_units(
            -(-planes // step), 1, max(1, most // step), device
        )
        warps = -(-side_by_side * lines.bands // lines.per_warp)
        return Work(
            -(-planes // side_by_side),
            warps * _LANES,
            side_by_side * 4 * lines.elements,
            lines,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * flops(layer),
        )

    return work
