"""Entries of the kernels of aggregation and subtraction2.

Tilings as the launching code chooses them (cuda_kernels, cuda_tiles).
"""

import dataclasses
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer
from tools.cuda_report.trips import Steps

_USUAL_THREADS, _MOST_THREADS, _USUAL_COLUMNS = 256, 512, 64
_MEMBERS = 8  # channels that share a weight
_ROWS = 4  # outputs of a thread, one below the other


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The sizes of a launch: tiles of `rows` x `columns` positions."""

    layer: Layer
    extent: int  # of the grid of positions, each way
    row_parts: int
    column_parts: int
    shared_rows: int
    pitch: int
    units: int
    units_per_block: int

    @property
    def rows(self) -> int:
        """Positions of a tile, one below the other."""
        steps = -(-self.extent // _ROWS)
        return -(-steps // self.row_parts) * _ROWS

    @property
    def columns(self) -> int:
        """Positions of a tile, side by side."""
        return -(-self.extent // self.column_parts)

    @property
    def threads(self) -> int:
        """Of a unit."""
        return self.rows // _ROWS * self.columns

    @property
    def blocks(self) -> int:
        """Of the grid."""
        tiles = self.row_parts * self.column_parts
        return -(-self.units // self.units_per_block) * tiles

    def sources(self) -> float:
        """Steps of a thread that copies a tile's source."""
        return -(-self.shared_rows * self.pitch // self.threads)

    def tables(self) -> float:
        """Steps of a thread that finds a tile's sources."""
        length = self.shared_rows + self.pitch
        return -(-length // (self.units_per_block * self.threads))

    def folded(self) -> float:
        """Pixels of a thread that folds a tile."""
        tiles = self.row_parts * self.column_parts
        return self.layer.image / tiles / self.threads

    def mirrored(self) -> float:
        """Mirror images of a pixel at one of the two edges, along an axis."""
        return self.layer.k // 2 / self.layer.side


def _even_units(units: int, tiles: int, most: int, device: Device) -> int:
    def fullest(count: int) -> int:
        blocks = -(-units // count) * tiles
        return -(-blocks // device.multiprocessors) * count

    # Of equals the largest.
    return min(range(most, most // 2, -1), key=fullest)


def _tiling(
    layer: Layer,
    device: Device,
    units: int,
    padded: bool,
    planes: int,
    has_source: bool,
) -> tuple[Tiling, int]:
    """The tiling of a launch and its bytes of shared memory.

    Args:
      layer: the sizes.
      device: whose multiprocessors share the units.
      units: grids of positions.
      padded: whether positions are those of the padded image.
      planes: values of a position in shared memory.
      has_source: whether a tile's source, with a rim, is there as well.
    """
    reach = layer.k - 1
    extent = layer.side + (reach if padded else 0)
    least = layer.k if padded else 1
    steps = -(-extent // _ROWS)
    most_rows = max(1, steps // ((least + 2 * (_ROWS - 1)) // _ROWS))
    most_columns = max(1, extent // least)
    column_parts = min(-(-extent // _USUAL_COLUMNS), most_columns)
    usual_rows = max(1, _USUAL_THREADS // -(-extent // column_parts))
    row_parts = min(-(-steps // usual_rows), most_rows)
    while True:
        tile = Tiling(layer, extent, row_parts, column_parts, 0, 0, units, 1)
        rows, columns = tile.rows, tile.columns
        source = (rows + reach) * (columns + reach) if has_source else 0
        elements = planes * max(source, rows * columns if padded else 0)
        shared_rows, pitch = (
            (rows + reach, columns + reach) if has_source else (0, 0)
        )
        table = -(-(shared_rows + pitch) // 4) * 16
        bytes_of_unit = table + 4 * elements
        most = device.most_shared // 2
        if tile.threads <= _MOST_THREADS and bytes_of_unit <= most:
            side_by_side = _even_units(
                units,
                row_parts * column_parts,
                max(
                    1,
                    min(
                        _USUAL_THREADS // tile.threads,
                        units // (2 * device.multiprocessors),
                        most // bytes_of_unit,
                    ),
                ),
                device,
            )
            tile = dataclasses.replace(
                tile,
                shared_rows=shared_rows,
                pitch=pitch,
                units_per_block=side_by_side,
            )
            return tile, table + side_by_side * 4 * elements
        if row_parts < most_rows:
            row_parts = min(2 * row_parts, most_rows)
        else:
            column_parts = min(2 * column_parts, most_columns)


def _work(
    units: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
    planes: int,
    padded: bool = False,
    has_source: bool = True,
) -> Callable[[Layer, DataType, Device], Work]:
    def work(layer: Layer, data_type: DataType, device: Device) -> Work:
        tile, shared = _tiling(
            layer, device, units(layer), padded, planes, has_source
        )
        return Work(
            tile.blocks,
            tile.units_per_block * tile.threads,
            shared,
            tile,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * flops(layer),
        )

    return work


# ---- Small images, which have kernels of their own for the gradients.

_SMALL = (7, 14, 28)
_STRIP = 7  # rows of outputs of a thread


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

    def pixels(self) -> float:
        """Of a thread."""
        return self.layer.image / self.threads

    def mirrored(self) -> float:
        """Mirror images of a pixel at one of the two edges, along an axis."""
        return self.layer.k // 2 / self.layer.side


def _is_small(layer: Layer) -> bool:
    return layer.k == 7 and layer.side in _SMALL


def _small_work(
    units: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
    values: tuple[int, int],
    most_threads: int,
) -> Callable[[Layer, DataType, Device], Work | None]:
    """Of each position and of each output there are so many values."""

    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if not _is_small(layer):
            return None
        small = Small(layer)
        side_by_side = most_threads // small.threads
        of_unit = values[0] * small.positions + values[1] * layer.image
        return Work(
            -(-units(layer) // side_by_side),
            side_by_side * small.threads,
            side_by_side * 4 * of_unit,
            small,
            layer.pixels * elements(layer) * data_type.bytes,
            layer.pixels * flops(layer),
        )

    return work


def _unless_small(
    work: Callable[[Layer, DataType, Device], Work],
) -> Callable[[Layer, DataType, Device], Work | None]:
    def other(layer: Layer, data_type: DataType, device: Device) -> Work | None:
        return None if _is_small(layer) else work(layer, data_type, device)

    return other


# ---- Gradients of subtraction2, by lines of lanes.

_LANES = 32
_LINE_ROWS = 7  # of a band


def _width(layer: Layer) -> int:
    """Columns of a thread: as many as divide a row of the image."""
    return next(w for w in (4, 2, 1) if not layer.side % w)


@dataclasses.dataclass(frozen=True)
class Lines:
    """The sizes of a launch whose lanes share rows of outputs."""

    layer: Layer

    @property
    def lanes(self) -> int:
        """Of a line."""
        return self.layer.side // _width(self.layer)

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
        reach, width = self.layer.k - 1, _width(self.layer)
        pitch = -(-(self.layer.side + reach) // width) * width
        rows = self.bands * _LINE_ROWS + reach
        return -(-rows * pitch // 4) * 4

    def rows(self) -> float:
        """Rows of a thread."""
        return _LINE_ROWS

    def folded(self, extent: int) -> float:
        """Lines of sums of which a thread adds the mirror images."""
        return extent / (self.bands * self.lanes)


def _line_work(layer: Layer, data_type: DataType, device: Device) -> Work:
    lines = Lines(layer)
    planes = _relation_planes(layer)
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
        layer.pixels * _subtraction_elements(layer) * data_type.bytes,
        layer.pixels * 2 * layer.R * layer.K,
    )


# ---- Loops.

_TABLES = Steps("find sources", lambda t: t.tables(), "shared store")
_FILL = Steps("copy a tile", lambda t: t.sources(), "shared store", 2)
_FILL_MEMBERS = Steps("channels", lambda t: 1, inner=(_FILL,))


def _images(anchors: int) -> tuple[Steps, ...]:
    """The four loops over a pixel's mirror images, along both axes."""
    counts: tuple[Callable[[Tiling | Small], float], ...] = (
        lambda t: 1,
        lambda t: 0,
        lambda t: t.mirrored(),
        lambda t: t.mirrored(),
    )
    columns = tuple(
        Steps("columns", count, "float", anchors) for count in counts
    )
    return tuple(Steps("rows", count, inner=columns) for count in counts)


def _fold(anchors: int) -> Steps:
    return Steps(
        "fold mirror images",
        lambda t: t.folded(),
        "global store",
        1,
        _images(anchors),
    )


def _fold_small(anchors: int) -> Steps:
    return Steps(
        "fold mirror images",
        lambda t: t.pixels(),
        "global store",
        1,
        _images(anchors),
    )


# Those of the padding; divisions are for what is mirrored more than once.
_MIRRORED = Steps("pixels", lambda t: t.layer.k - 1, "float", never="special")


def _weight_planes(layer: Layer) -> int:
    return BATCH * layer.G


def _relation_planes(layer: Layer) -> int:
    return BATCH * layer.R


def _aggregation_elements(layer: Layer) -> int:
    return layer.G * layer.K + 2 * layer.M


def _aggregation_flops(layer: Layer) -> int:
    return 2 * layer.M * layer.K


def _subtraction_elements(layer: Layer) -> int:
    return layer.R * (layer.K + 2)


def _subtraction_flops(layer: Layer) -> int:
    return layer.R * layer.K


_GROUP = "window operator"
_SIZES = "<{type}, {k}, 4>"

ENTRIES = (
    Entry(
        f"fast.aggregation.forward{_SIZES}",
        "aggregation",
        _GROUP,
        {},
        (
            _TABLES,
            _FILL_MEMBERS,
            # The last step stands after the loop.
            Steps("columns of taps", lambda t: t.layer.k - 1, "ffma", 0),
        ),
        _work(
            _weight_planes, _aggregation_elements, _aggregation_flops, _MEMBERS
        ),
    ),
    Entry(
        "fast.grad_weight<{type}, {k}, 4, true>",
        "aggregation, gradient of weight",
        _GROUP,
        {},
        (
            _TABLES,
            _FILL_MEMBERS,
            Steps("columns of taps", lambda t: t.layer.k, "ffma", 0),
        ),
        _work(
            _weight_planes, _aggregation_elements, _aggregation_flops, _MEMBERS
        ),
    ),
    Entry(
        f"fast.grad_input{_SIZES}",
        "aggregation, gradient of input",
        _GROUP,
        {},
        (
            _TABLES,
            _FILL,
            Steps("columns of taps", lambda t: t.layer.k - 1, "ffma", 0),
            _fold(_MEMBERS),
        ),
        _unless_small(
            _work(
                _weight_planes,
                _aggregation_elements,
                _aggregation_flops,
                _MEMBERS,
                padded=True,
            )
        ),
    ),
    Entry(
        "fast.grad_input_small<{type}, {side}>",
        "aggregation, gradient of input",
        _GROUP,
        {},
        (
            Steps("copy gradients", lambda t: t.pixels(), "shared store", 2),
            Steps("columns of taps", lambda t: t.layer.k, "ffma", 0),
            _fold_small(0),
        ),
        _small_work(
            _weight_planes,
            _aggregation_elements,
            _aggregation_flops,
            (_MEMBERS, _MEMBERS),
            112,
        ),
    ),
    Entry(
        f"fast.subtraction.forward{_SIZES}",
        "subtraction2",
        _GROUP,
        {},
        (
            _TABLES,
            Steps("copy a tile", lambda t: t.sources(), "shared store"),
            Steps("columns of taps", lambda t: t.layer.k, "global store", 0),
        ),
        _work(_relation_planes, _subtraction_elements, _subtraction_flops, 1),
    ),
    Entry(
        "fast.backward_same_size<{type}, {k}, {width}>",
        "subtraction2, gradients",
        _GROUP,
        {},
        (
            Steps("rows", lambda t: t.rows(), "float", 0),
            Steps(
                "mirror images in rows",
                lambda t: t.folded(t.layer.side + t.layer.k - 1),
                inner=(
                    Steps(
                        "chunks",
                        lambda t: 0,
                        inner=(Steps("columns", lambda t: 0, "float"),),
                    ),
                    _MIRRORED,
                ),
            ),
            Steps(
                "mirror images in columns",
                lambda t: t.folded(t.layer.side),
                inner=(_MIRRORED,),
            ),
            Steps("store rows", lambda t: t.rows(), "global store", 0),
        ),
        _line_work,
        sizes=lambda layer, _: {"width": _width(layer)},
    ),
)
