"""The loops of the patchwise kernels, in their source's order."""

import dataclasses
import math
from collections.abc import Callable

from tools.cuda_report.families.patchwise_launch import (
    DEEP,
    SIDE,
    TILE,
    WIDE,
    Launch,
    blocks_of_relation,
    columns_together,
    depth,
    products,
    steps_of_taps,
    units_of_share,
    value_width,
)
from tools.cuda_report.trips import Steps

_Trips = Callable[[Launch], float]
_ONE = 16  # bytes of a copy

# ---- Loops that several kernels have.


def _jobs(*inner: Steps) -> tuple[Steps, ...]:
    return (Steps("jobs", lambda a: 1, inner=inner),)


def _of_tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda a: a.tiles, inner=inner)


def _find() -> tuple[Steps, ...]:
    def side(a: Launch) -> float:
        return a.steps(a.around)

    return (
        Steps("find rows", side, "shared store", 0),
        Steps("find columns", side, "shared store", 0),
        Steps("find taps", lambda a: a.steps(a.layer.K), "shared store", 0),
    )


def _find_images(what: str) -> Steps:
    """Of the rows or the columns, eight lanes for each tap."""

    def mirrored(a: Launch) -> float:
        return a.at_edge()

    return Steps(
        what,
        lambda a: a.steps(SIDE * a.layer.k),
        inner=(
            Steps("periods", mirrored),
            Steps("images", mirrored, "shared store", 0),
            Steps("periods of the mirror", mirrored),
            Steps("images in the mirror", mirrored, "shared store", 0),
            Steps("no images", lambda a: 0, "shared store", 0),
        ),
    )


def _stage(what: str, pieces: _Trips) -> tuple[Steps, ...]:
    """stage_pixels: element by element, or by 8 or 16 bytes, alike."""
    return (
        Steps(f"{what}, elements", lambda a: 0, "shared store", 0),
        Steps(what, lambda a: a.steps(pieces(a)), "global load", 0),
        Steps(f"{what}, other pieces", lambda a: 0, "global load", 0),
    )


def _stage_value(what: str, pixels: _Trips) -> tuple[Steps, ...]:
    def pieces(a: Launch) -> float:
        return pixels(a) * value_width(a) * a.bytes / _ONE

    return _stage(what, pieces)


def _stage_relation(what: str, pixels: _Trips) -> tuple[Steps, ...]:
    def pieces(a: Launch) -> float:
        one = min(_ONE, a.layer.R * a.bytes)
        return pixels(a) * _blocks_at_once(a) * DEEP * a.bytes / one

    return _stage(what, pieces)


def _stage_around(channels: _Trips) -> Steps:
    def fours(a: Launch) -> float:
        return a.steps((a.around + 1) ** 2 * channels(a) / 4)

    return Steps("copy around the tile", fours, "global load", 0)


def _halo(a: Launch) -> int:
    return a.around**2


_ADD_WARPS = Steps("add warps", lambda a: a.parts - 1, "barrier", 2)


def _depth(trips: _Trips) -> Steps:
    return Steps("depth", trips, "tensor", 0)


def _each_image(trips: _Trips, *inner: Steps, anchor: str = "") -> Steps:
    """Images.for_each, a pass for each that is shown any pixel."""
    columns = Steps("columns' images", trips, anchor, 0, inner)
    return Steps("rows' images", trips, inner=(columns,))


# ---- The kernels.


def _blocks_at_once(a: Launch) -> int:
    return min(blocks_of_relation(a.layer), 4)


def _add(what: str, trips: _Trips) -> Steps:
    return Steps(what, trips, "tensor", 0)


HIDDEN_FORWARD = _jobs(
    *_find(),
    Steps(
        "relation channels",
        lambda a: blocks_of_relation(a.layer) / _blocks_at_once(a),
        inner=(
            *_stage_relation("copy psi", _halo),
            *_stage_relation("copy phi", lambda a: TILE),
            Steps(
                "taps",
                lambda a: a.layer.K / a.parts,
                inner=(_add("blocks of psi", _blocks_at_once),),
            ),
            _add("blocks of phi", lambda a: _blocks_at_once(a) / a.parts),
        ),
    ),
    _ADD_WARPS,
)

CORE_FORWARD = _jobs(
    *_find(),
    *_stage_value("copy value", _halo),
    Steps(
        "copy hidden",
        lambda a: depth(a.layer) / a.parts,
        "global load",
        0,
    ),
    Steps(
        "taps",
        lambda a: a.layer.K / a.parts,
        "ffma",
        0,
        (_depth(lambda a: depth(a.layer) - 1),),
    ),
    _ADD_WARPS,
)

VALUE_GRADIENTS = _jobs(
    _find_images("find rows"),
    _find_images("find columns"),
    *_stage_value("copy grad_output", lambda a: (a.around + 1) ** 2),
    _stage_around(lambda a: depth(a.layer) * DEEP),
    Steps(
        "taps",
        lambda a: a.layer.K / a.parts,
        inner=(
            Steps("next row", lambda a: a.parts / a.layer.k),
            _each_image(
                lambda a: a.images(),
                _depth(lambda a: depth(a.layer) - 1),
                anchor="ffma",
            ),
        ),
    ),
    _ADD_WARPS,
)

HIDDEN_GRADIENTS = _jobs(
    *_find(),
    Steps(
        "weight channels",
        lambda a: units_of_share(a.layer),
        inner=(
            *_stage_value("copy value", _halo),
            Steps(
                "steps of taps",
                lambda a: math.ceil(steps_of_taps(a.layer)) / a.parts,
                "tensor",
                0,
            ),
        ),
    ),
    _ADD_WARPS,
)

CORE_WEIGHTS = _jobs(
    _of_tiles(
        *_find(),
        *_stage_value("copy value", _halo),
        *_stage_value("copy grad_output", lambda a: TILE),
        Steps(
            "copy hidden",
            lambda a: a.steps(TILE * products(a.layer) * WIDE),
            "shared store",
        ),
        Steps("rows", lambda a: a.rows() * a.busy, "tensor", 0),
    )
)


def _sums(a: Launch) -> int:
    """Of scale and shift, that a half of a tile adds up."""
    return (a.layer.K + 1) * min(blocks_of_relation(a.layer), 2) * DEEP * 2


def _shown(a: Launch) -> float:
    """Of psi as often as it has images; phi once."""
    return (a.layer.K * a.images() + 1) / (a.layer.K + 1)


RELATION_GRADIENTS = _jobs(
    Steps("clear sums", lambda a: 2 * _sums(a) / a.threads, "shared store"),
    _of_tiles(
        _find_images("find rows"),
        _find_images("find columns"),
        _stage_around(lambda a: depth(a.layer) * DEEP),
        Steps(
            "psi and phi",
            lambda a: 2,
            inner=(
                Steps(
                    "entries",
                    lambda a: (a.layer.K + 1) / a.parts / 2,
                    inner=(
                        Steps("next row", lambda a: a.parts / a.layer.k),
                        _each_image(_shown, _depth(lambda a: depth(a.layer))),
                    ),
                ),
            ),
        ),
    ),
    Steps("write sums", lambda a: _sums(a) / a.threads, "global store"),
)


# Unrolled over the taps of a warp: 8, 4 or 2.
_OF_A_TAP = _each_image(_shown, anchor="tensor")
HIDDEN_WEIGHTS = _jobs(
    _of_tiles(
        _find_images("find rows"),
        _find_images("find columns"),
        _stage_around(lambda a: columns_together(a.layer) * WIDE),
        Steps(
            "rows",
            lambda a: a.rows() * a.busy,
            inner=(
                *(_OF_A_TAP,) * 2,
                *(dataclasses.replace(_OF_A_TAP, optional=True),) * 6,
            ),
        ),
    )
)

ADD_PARTIALS = (
    Steps("zeros", lambda a: 0, "global store", 0),
    Steps("more zeros", lambda a: 0, "global store", 0),
    Steps(
        "sums",
        lambda a: 1,
        inner=(Steps("parts", lambda a: a.parts, "float"),),
    ),
)
