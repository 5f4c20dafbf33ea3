"""The loops of the pairwise attention's kernels, in their source's order."""

from collections.abc import Callable

from tools.cuda_report.families.pairwise_tile import (
    THREADS,
    Tile,
    lane_bits,
    padded,
)
from tools.cuda_report.trips import Steps

# ---- Loops that several kernels have.


def _cells(
    what: str,
    rows: Callable[[Tile], float],
    columns: Callable[[Tile], int],
    anchor: str = "",
    per_step: int = 1,
    inner: tuple[Steps, ...] = (),
    before: tuple[Steps, ...] = (),
) -> tuple[Steps, ...]:
    """for_each_cell."""
    return (
        Steps(f"{what}: lanes", lambda t: lane_bits(columns(t)) + 1),
        Steps(
            what,
            lambda t: t.cell_rows(rows(t), columns(t)),
            inner=(
                *before,
                Steps(
                    what,
                    lambda t: -(-columns(t) >> lane_bits(columns(t))),
                    anchor,
                    per_step,
                    inner,
                ),
            ),
        ),
    )


def _load(what: str, rows: Callable[[Tile], int]) -> tuple[Steps, ...]:
    return _cells(
        f"load {what}",
        lambda t: padded(rows(t)) if t.resident else 0,
        lambda t: padded(t.layer.R),
        "global load",
    )


_BEGIN = _cells(
    "count mirrored taps",
    lambda t: t.P,
    lambda t: t.layer.k,
    inner=(
        Steps("of rows", lambda t: t.layer.k, "special", 4),
        Steps("of columns", lambda t: t.layer.k, "special", 4),
    ),
    before=(Steps("of none", lambda t: 0, "shared store", 2, optional=True),),
)
_OWN = _cells(
    "own relation",
    lambda t: t.P,
    lambda t: padded(t.layer.R),
    "global load",
    3,
)
_PLACE = (Steps("place pairs", lambda t: t.items(t.rows), "shared store", 2),)


def _relate(stores: int = 1) -> tuple[Steps, ...]:
    return _cells(
        "relate",
        lambda t: t.rows,
        lambda t: padded(t.layer.R),
        "shared store",
        stores,
    )


def _product(
    what: str,
    columns: Callable[[Tile], int],
    depth: Callable[[Tile], int],
) -> tuple[Steps, ...]:
    """multiply: in registers, or by cells where the factor did not fit."""
    return (
        Steps(f"{what}: lanes", lambda t: 3),
        Steps(
            what,
            lambda t: t.product_items(columns(t)) if t.resident else 0,
            "shared store",
            1,
            (Steps(what, lambda t: padded(depth(t)) // 4, "ffma", 64),),
        ),
        *_cells(
            f"{what}, by cells",
            lambda t: 0 if t.resident else t.rows,
            lambda t: padded(columns(t)),
            inner=(Steps(what, depth, "global load"),),
        ),
    )


def _outer(what: str, height: Callable[[Tile], int]) -> Steps:
    def items(t: Tile) -> float:
        count, segments = t.outer(height(t), t.layer.R)
        return t.items(count * segments)

    def rows(t: Tile) -> float:
        return t.rows / t.outer(height(t), t.layer.R)[1]

    return Steps(
        what, items, "global store", 1, (Steps(what, rows, "ffma", 16),)
    )


_TABLE = _cells(
    "add to table",
    lambda t: t.chunk,
    lambda t: t.layer.R,
    inner=(Steps("add to table", lambda t: t.P, "float"),),
)


def _aggregate(what: str) -> tuple[Steps, ...]:
    return _cells(
        what,
        lambda t: t.P,
        lambda t: -(-t.layer.M // (4 * t.layer.G)) * t.layer.G,
        inner=(Steps(what, lambda t: t.chunk, "ffma", 4),),
    )


def _clear_relation(own_p: bool) -> tuple[Steps, ...]:
    return _cells(
        "clear relation",
        lambda t: t.P,
        lambda t: t.layer.R,
        "shared store",
        2 if own_p else 1,
    )


def _relation_gradients(own_p: bool) -> tuple[Steps, ...]:
    return _cells(
        "relation gradients",
        lambda t: t.P,
        lambda t: t.layer.R,
        inner=(
            Steps(
                "relation gradients",
                lambda t: t.chunk,
                "float",
                2 if own_p else 1,
            ),
        ),
    )


def _write(what: str, columns: Callable[[Tile], int]) -> tuple[Steps, ...]:
    return _cells(what, lambda t: t.P, columns, "global store")


_CLEAR_PART = Steps(
    "clear part", lambda t: t.part_elements / THREADS, "global store"
)


def _pixel_sums(what: str) -> Steps:
    return Steps(
        what,
        lambda t: t.items(t.layer.R),
        inner=(Steps(what, lambda t: t.P, "float"),),
    )


def _tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda t: t.tiles_of_block(), inner=inner)


def _chunks(*inner: Steps) -> Steps:
    return Steps("chunks of taps", lambda t: t.chunks(), inner=inner)


def _of_r(t: Tile) -> int:
    return t.layer.R


def _of_g(t: Tile) -> int:
    return t.layer.G


def _of_m(t: Tile) -> int:
    return t.layer.M


# ---- The kernels.

_MAPPING = (
    *_PLACE,
    *_relate(),
    *_product("hidden", _of_r, _of_r),
    *_product("logits", _of_g, _of_r),
)

ATTEND = (
    *_load("w1", _of_r),
    *_load("w2", _of_g),
    _tiles(
        *_BEGIN,
        *_OWN,
        *_cells("clear value", lambda t: t.P, _of_m, "shared store"),
        *_cells("clear softmax", lambda t: t.P, _of_g, "shared store", 2),
        _chunks(
            *_MAPPING,
            *_cells(
                "soften",
                lambda t: t.P,
                _of_g,
                inner=(
                    Steps("largest", lambda t: t.chunk, "shared load", 2),
                    Steps("exponentials", lambda t: t.chunk, "special"),
                ),
            ),
            *_aggregate("aggregate"),
        ),
        *_write("write output", _of_m),
        *_write("write log-sum-exp", _of_g),
    ),
)

SUM_PRODUCTS = (
    Steps(
        "elements",
        lambda layer: 1,
        inner=(Steps("products", lambda a: a.M / a.G, "global load", 2),),
    ),
)


def attend_backward(own_p: bool) -> tuple[Steps, ...]:
    """Loops of the backward, of blocks that own p or q."""
    return (
        *_load("w1", _of_r),
        *_load("w2", _of_g),
        *((_CLEAR_PART,) if own_p else ()),
        _tiles(
            *_BEGIN,
            *_OWN,
            *_clear_relation(own_p),
            *(
                ()
                if own_p
                else (
                    Steps(
                        "clear value",
                        lambda t: t.P * t.layer.M / THREADS,
                        "shared store",
                    ),
                )
            ),
            _chunks(
                *_MAPPING,
                *_cells(
                    "soften",
                    lambda t: t.rows,
                    lambda t: padded(t.layer.G),
                    inner=(
                        Steps(
                            "gradient of weights",
                            lambda t: t.layer.M / t.layer.G,
                            "global load",
                            2,
                        ),
                    ),
                ),
                *_product("gradient of hidden", _of_r, _of_g),
                *((_outer("gradient of w2", _of_g),) if own_p else ()),
                *_product("gradient of relation", _of_r, _of_r),
                *((_outer("gradient of w1", _of_r), *_TABLE) if own_p else ()),
                *_relation_gradients(own_p),
                *(() if own_p else _aggregate("gradient of value")),
            ),
            *_write("write relation", _of_r),
            *(
                (_pixel_sums("sum of scale"), _pixel_sums("sum of shift"))
                if own_p
                else _write("write value", _of_m)
            ),
        ),
    )


SUM_MOMENTS = (
    _CLEAR_PART,
    _tiles(
        *_BEGIN,
        *_OWN,
        _chunks(
            *_PLACE,
            *_relate(2),
            _outer("second moments", _of_r),
            *_TABLE,
        ),
    ),
)


def spread_moments(own_p: bool) -> tuple[Steps, ...]:
    """Loops of the second norm's gradient, of blocks that own p or q."""
    return (
        *_load("grad_second", _of_r),
        *((_CLEAR_PART,) if own_p else ()),
        _tiles(
            *_BEGIN,
            *_OWN,
            *_clear_relation(own_p),
            _chunks(
                *_PLACE,
                *_relate(),
                *_product("gradient of relation", _of_r, _of_r),
                *_relation_gradients(own_p),
            ),
            *_write("write relation", _of_r),
            *(
                (_pixel_sums("sum of scale"), _pixel_sums("sum of shift"))
                if own_p
                else _write("write zeros", _of_m)
            ),
        ),
    )
