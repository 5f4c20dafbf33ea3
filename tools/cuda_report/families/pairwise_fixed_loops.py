"""The loops of the pairwise attention's kernels on tiles of published sizes.

In their source's order. What the compiler knows to run once is no loop any
more, which differs from size to size: those loops are optional.
"""

from collections.abc import Callable

from tools.cuda_report.families.pairwise_fixed_tile import FixedTile
from tools.cuda_report.families.pairwise_tile import THREADS, padded
from tools.cuda_report.trips import Steps

Count = Callable[[FixedTile], float]


def _cells(what: str, cells: Count, anchor: str, per_step: int = 1) -> Steps:
    return Steps(
        what, lambda t: t.steps(cells(t)), anchor, per_step, optional=True
    )


def _rows_or_cells(
    what: str, cells: Count, columns: Count, anchor: str, per_step: int = 1
) -> tuple[Steps, ...]:
    """for_each_cell, with or without a loop over a row's columns."""

    def across(t: FixedTile) -> float:
        return -(-columns(t) // 32)

    return (
        Steps(
            what,
            lambda t: t.steps(cells(t)) / across(t),
            inner=(Steps(what, across, anchor, per_step),),
            optional=True,
        ),
        _cells(what, cells, anchor, per_step),
    )


def _product(what: str, columns: Count, depth: Count) -> Steps:
    return Steps(
        what,
        lambda t: t.steps(t.rows // 4 * padded(int(columns(t))) // 4),
        "shared store",
        0,
        (
            Steps(
                what,
                lambda t: padded(int(depth(t))) // 4,
                "ffma",
                64,
                optional=True,
            ),
        ),
        optional=True,
    )


def _of_r(t: FixedTile) -> int:
    return t.layer.R


def _of_g(t: FixedTile) -> int:
    return t.layer.G


def _load(what: str, rows: Count) -> Steps:
    return _cells(
        f"load {what}",
        lambda t: padded(int(rows(t))) * t.layer.R,
        "shared store",
    )


_BEGIN = (
    _cells("places of pixels", lambda t: t.P, "shared store", 2),
    *_rows_or_cells(
        "own relation", lambda t: t.P * t.layer.R, _of_r, "global load", 3
    ),
)
_PLACE = (
    _cells("place pairs", lambda t: t.rows, "shared store", 2),
    _cells("table of the chunk", lambda t: t.chunk * t.layer.R, "shared store"),
)


def _relate(stores: int = 1) -> tuple[Steps, ...]:
    return _rows_or_cells(
        "relate",
        lambda t: t.rows * t.layer.R / 4,
        lambda t: t.layer.R // 4,
        "shared store",
        stores,
    )


_MAPPING = (
    *_PLACE,
    *_relate(),
    _product("hidden", _of_r, _of_r),
    _product("logits", _of_g, _of_r),
)


def _channels(what: str, anchor: str) -> tuple[Steps, ...]:
    """Of cells of a pixel and 16 channels."""
    return _rows_or_cells(
        what,
        lambda t: t.P * t.layer.M / 16,
        lambda t: t.layer.M // 16,
        anchor,
        0,
    )


def _clear_value() -> tuple[Steps, ...]:
    return _rows_or_cells(
        "clear value",
        lambda t: t.P * t.layer.M,
        lambda t: t.layer.M,
        "shared store",
    )


def _tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda t: t.tiles_of_block(), inner=inner)


def _chunks(*inner: Steps) -> Steps:
    return Steps("chunks of taps", lambda t: t.chunks(), inner=inner)


ATTEND = (
    _load("w1", _of_r),
    _load("w2", _of_g),
    _tiles(
        *_BEGIN,
        *_clear_value(),
        *_rows_or_cells(
            "clear softmax",
            lambda t: t.P * t.layer.G,
            _of_g,
            "shared store",
            0,
        ),
        _chunks(*_MAPPING, *_channels("aggregate", "ffma")),
        *_channels("write output", "global store"),
        *_rows_or_cells(
            "write log-sum-exp",
            lambda t: t.P * t.layer.G,
            _of_g,
            "global store",
            0,
        ),
    ),
)

_CLEAR_PART = Steps(
    "clear part", lambda t: t.part_elements / THREADS, "global store"
)
_TABLE = _rows_or_cells(
    "add to table", lambda t: t.chunk * t.layer.R, _of_r, "float", 0
)


def _clear_relation(own_p: bool) -> tuple[Steps, ...]:
    return _rows_or_cells(
        "clear relation",
        lambda t: t.P * t.layer.R,
        _of_r,
        "shared store",
        2 if own_p else 1,
    )


_RELATION_GRADIENTS = _rows_or_cells(
    "relation gradients",
    lambda t: t.P * t.layer.R / 4,
    lambda t: t.layer.R // 4,
    "float",
    0,
)


def _outer(what: str, height: Callable[[FixedTile], int]) -> Steps:
    # Two rows at a time, with all that a thread has of each.
    return Steps(
        what,
        lambda t: t.outer_rows(height(t)) / 2,
        "ffma",
        0,
    )


def _write(what: str, columns: Count) -> tuple[Steps, ...]:
    return _rows_or_cells(
        what, lambda t: t.P * columns(t), columns, "global store"
    )


def _pixel_sums(what: str) -> Steps:
    return Steps(what, lambda t: t.items(t.layer.R), "float", 0)


def _end(own_p: bool, of_q: tuple[Steps, ...]) -> tuple[Steps, ...]:
    return (
        *_write("write relation", _of_r),
        *(
            (_pixel_sums("sum of scale"), _pixel_sums("sum of shift"))
            if own_p
            else of_q
        ),
    )


def attend_backward(own_p: bool) -> tuple[Steps, ...]:
    """Loops of the backward, of blocks that own p or q."""
    return (
        _load("w1", _of_r),
        _load("w2", _of_g),
        *((_CLEAR_PART,) if own_p else ()),
        _tiles(
            *_BEGIN,
            *_clear_relation(own_p),
            *(
                ()
                if own_p
                else (
                    _cells(
                        "clear value",
                        lambda t: t.P * t.layer.M,
                        "shared store",
                    ),
                )
            ),
            _chunks(
                *_MAPPING,
                *_rows_or_cells(
                    "soften",
                    lambda t: t.rows * padded(t.layer.G) / 4,
                    lambda t: padded(t.layer.G) // 4,
                    "ffma",
                    0,
                ),
                _product("gradient of hidden", _of_r, _of_g),
                *((_outer("gradient of w2", _of_g),) if own_p else ()),
                _product("gradient of relation", _of_r, _of_r),
                *((_outer("gradient of w1", _of_r), *_TABLE) if own_p else ()),
                *_RELATION_GRADIENTS,
                *(() if own_p else _channels("gradient of value", "ffma")),
            ),
            *_end(own_p, _write("write value", lambda t: t.layer.M)),
        ),
    )


SUM_MOMENTS = (
    _CLEAR_PART,
    _tiles(
        *_BEGIN,
        _chunks(
            _PLACE[0],
            *_relate(2),
            _outer("second moments", _of_r),
            *_TABLE,
        ),
    ),
)


def spread_moments(own_p: bool) -> tuple[Steps, ...]:
    """Loops of the second norm's gradient, of blocks that own p or q."""
    return (
        _load("grad_second", _of_r),
        *((_CLEAR_PART,) if own_p else ()),
        _tiles(
            *_BEGIN,
            *_clear_relation(own_p),
            _chunks(
                *_PLACE,
                *_relate(),
                _product("gradient of relation", _of_r, _of_r),
                *_RELATION_GRADIENTS,
            ),
            *_end(own_p, _write("write zeros", lambda t: t.layer.M)),
        ),
    )
