"""Entries of the kernels of aggregation and subtraction2."""

from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.families.window_tiles import (
    in_lines,
    small_work,
    tiled,
    unless_small,
    width,
)
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer
from tools.cuda_report.trips import Steps

_MEMBERS = 8  # channels that share a weight

# ---- Loops. SAN has eight channels to each weight, and mirrors.

_TABLES = Steps("find sources", lambda t: t.tables(), "shared store")
_FILL = Steps("copy a tile", lambda t: t.sources(), "shared store", 2)
_FILL_OF_FEWER = Steps(
    "copy a tile of fewer channels", lambda t: 0, "shared store", 2
)
_FILL_WITH_ZEROS = Steps(
    "copy a tile with zeros", lambda t: 0, "shared store", 2
)
_FILL_MEMBERS = Steps(
    "channels",
    lambda t: 1,
    inner=(_FILL_OF_FEWER, _FILL, _FILL_OF_FEWER, _FILL_WITH_ZEROS),
)


_TAP_ROWS = Steps("rows of taps", lambda t: t.layer.k, "ffma", 0)


def _rows(inner: Steps) -> Steps:
    return Steps("rows", lambda t: t.rows_of_thread, inner=(inner,))


def _mirrored(anchors: int) -> Steps:
    # Divisions are for what is mirrored more than once.
    return Steps(
        "padding", lambda t: t.padding(), "float", anchors, never="special"
    )


def _fold(anchors: int) -> tuple[Steps, ...]:
    return (
        Steps(
            "mirror images in rows",
            lambda t: t.mirrored_rows(),
            inner=(_mirrored(anchors),),
        ),
        Steps(
            "mirror images in columns",
            lambda t: t.mirrored_columns(),
            inner=(_mirrored(anchors),),
        ),
    )


_STORE = Steps("store pixels", lambda t: t.accesses(), "global store", 0)


# ---- Launches.


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


def _sizes(layer: Layer, _: DataType) -> dict[str, int]:
    return {"width": width(layer)}


_GROUP = "window operator"
_AGGREGATION = (_weight_planes, _aggregation_elements, _aggregation_flops)


def _only_where(
    suits: Callable[[Layer], bool],
    work: Callable[[Layer, DataType, Device], Work | None],
) -> Callable[[Layer, DataType, Device], Work | None]:
    return lambda layer, *others: work(layer, *others) if suits(layer) else None


def _forward_entry(k: int, rows: Steps) -> Entry:
    return Entry(
        "fast.aggregation.forward<{type}, {k}, {width}>",
        "aggregation",
        _GROUP,
        {},
        (_TABLES, _FILL_MEMBERS, rows),
        _only_where(lambda a: a.k == k, tiled(*_AGGREGATION, _MEMBERS)),
        sizes=_sizes,
    )


def _small_entry(sides: tuple[int, ...], fold: tuple[Steps, ...]) -> Entry:
    return Entry(
        "fast.grad_input_small<{type}, {side}, {width}>",
        "aggregation, gradient of input",
        _GROUP,
        {},
        (
            Steps("copy gradients", lambda t: t.accesses(), "shared store", 0),
            *fold,
            _STORE,
        ),
        _only_where(
            lambda a: a.side in sides, small_work(*_AGGREGATION, _MEMBERS)
        ),
        sizes=_sizes,
    )


ENTRIES = (
    # Of large footprints, rows of taps are unrolled.
    _forward_entry(3, _rows(_TAP_ROWS)),
    _forward_entry(7, Steps("rows", lambda t: t.rows_of_thread, "ffma", 0)),
    Entry(
        "fast.grad_weight<{type}, {k}, {width}, true>",
        "aggregation, gradient of weight",
        _GROUP,
        {},
        (
            _TABLES,
            _FILL_MEMBERS,
            _rows(_TAP_ROWS),
        ),
        tiled(*_AGGREGATION, _MEMBERS),
        sizes=_sizes,
    ),
    Entry(
        "fast.grad_input<{type}, {k}, {width}>",
        "aggregation, gradient of input",
        _GROUP,
        {},
        (
            _TABLES,
            _FILL_OF_FEWER,
            _FILL,
            _rows(Steps("rows of taps", lambda t: t.tap_rows(), "ffma", 0)),
            *_fold(_MEMBERS),
            _STORE,
        ),
        unless_small(tiled(*_AGGREGATION, _MEMBERS, padded=True)),
        sizes=_sizes,
    ),
    # Where there are as many threads as columns and rows, these are no loops.
    _small_entry((7,), _fold(_MEMBERS)[::-1]),
    _small_entry(
        (14, 28),
        (
            Steps("sums of two strips", lambda t: t.shared_sums(), "float", 0),
            Steps(
                "mirror images in columns",
                lambda t: t.mirrored_columns() * t.padding(),
                "float",
                0,
                never="special",
            ),
            _fold(_MEMBERS)[0],
        ),
    ),
    Entry(
        "fast.subtraction.forward<{type}, {k}, {width}>",
        "subtraction2",
        _GROUP,
        {},
        (
            _TABLES,
            Steps("copy a tile", lambda t: t.sources(), "shared store"),
            _rows(
                Steps("rows of taps", lambda t: t.layer.k, "global store", 0)
            ),
        ),
        tiled(_relation_planes, _subtraction_elements, _subtraction_flops, 1),
        sizes=_sizes,
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
                lambda t: t.mirrored_rows(),
                inner=(
                    Steps(
                        "chunks",
                        lambda t: 0,
                        inner=(Steps("columns", lambda t: 0, "float"),),
                    ),
                    _mirrored(1),
                ),
            ),
            Steps(
                "mirror images in columns",
                lambda t: t.mirrored_columns(),
                inner=(_mirrored(1),),
            ),
            Steps("store rows", lambda t: t.rows(), "global store", 0),
        ),
        in_lines(
            _relation_planes,
            _subtraction_elements,
            lambda layer: 2 * _subtraction_flops(layer),
        ),
        sizes=_sizes,
    ),
)
