"""The loops of the patchwise attention's kernels, in their source's order."""

import dataclasses
import math
from collections.abc import Callable

from tools.cuda_report.families.patchwise_launch import (
    CENTRE_ROWS,
    DEPTH,
    OWNED,
    QUADS,
    SIDE,
    TILE,
    Launch,
)
from tools.cuda_report.trips import Steps

_CENTRE = 64  # channels of phi at a time, in hidden_forward

# ---- Loops that several kernels have.


def _find() -> tuple[Steps, ...]:
    def side(n: Launch) -> float:
        return n.spread(n.halo_side)

    return (
        Steps("find rows", side, "shared store", 0),
        Steps("find columns", side, "shared store", 0),
        Steps("find taps", lambda n: n.spread(n.rows), "shared store", 0),
    )


def _copy(what: str, trips: Callable[[Launch], float]) -> Steps:
    return Steps(what, trips, "global load", 0)


def _lanes(channels: int) -> int:
    """Threads that take neighbouring channels of a pixel."""
    return min(8, 1 << (channels.bit_length() - 1))


def _rounds(channels: Callable[[Launch], int]) -> Callable[[Launch], int]:
    """How often all threads take their next channel."""
    return lambda n: -(-channels(n) // _lanes(channels(n)))


def _stage_tile(what: str, channels: Callable[[Launch], int]) -> Steps:
    def pixels(n: Launch) -> int:
        return n.copies(TILE, n.threads / _lanes(channels(n)))

    return Steps(what, _rounds(channels), inner=(_copy(what, pixels),))


def _store_tile(what: str, channels: Callable[[Launch], int]) -> Steps:
    def pixels(n: Launch) -> int:
        return -(-TILE * _lanes(channels(n)) // n.threads)

    write = Steps(what, pixels, "global store", 0)
    return Steps(what, _rounds(channels), inner=(write,))


def _stage_halos(what: str, channels: Callable[[Launch], int]) -> Steps:
    def rows(n: Launch) -> int:
        return n.copies(n.halo_side, n.threads / _lanes(channels(n)) / 8)

    columns = Steps(
        what, lambda n: math.ceil(n.halo_side / 8), inner=(_copy(what, rows),)
    )
    return Steps(what, _rounds(channels), inner=(columns,))


def _stage_halo() -> Steps:
    """Of one channel: the loop over channels is gone."""
    return _stage_halos("copy a halo", lambda n: 1).inner[0]


def _members(n: Launch) -> int:
    """Channels of value that a block has at hand."""
    return OWNED << n.group


def _mixed(
    rows: Callable[[Launch], int], transposed: bool, runs: float = 1
) -> Steps:
    """mix; weights whose channels lie side by side are transposed."""
    as_they_are = Steps(
        "copy weights",
        lambda n: math.ceil(rows(n) / 32),
        inner=(
            _copy(
                "copy weights",
                lambda n: n.copies(min(DEPTH, n.layer.G), n.threads / 32),
            ),
        ),
    )
    turned = _copy(
        "transpose weights",
        lambda n: n.copies(rows(n), n.threads / DEPTH) if transposed else 0,
    )
    return Steps(
        "channels to mix",
        lambda n: runs * math.ceil(n.layer.G / DEPTH),
        inner=(
            _stage_tile("copy channels", lambda n: min(DEPTH, n.layer.G)),
            *(() if transposed else (as_they_are,)),
            turned,
            Steps(
                "mix",
                lambda n: (
                    min(DEPTH, n.layer.G)
                    * min(1.0, n.spread(math.ceil(n.taps / OWNED) * QUADS))
                ),
                "ffma",
                32,
            ),
        ),
    )


def _add_parts(
    parts: Callable[[Launch], int],
    groups: Callable[[Launch], int],
    anchor: str = "global store",
) -> Steps:
    return Steps(
        "add parts",
        lambda n: n.spread(groups(n) * OWNED * TILE),
        anchor,
        0,
        (Steps("add parts", parts, "float"),),
    )


def _gather(per_step: int, anchor: str) -> Steps:
    """What taps hand to the places of the halo."""
    return Steps(
        "gather places",
        lambda n: n.spread(n.halo_side**2),
        inner=(
            Steps(
                "rows of taps",
                lambda n: SIDE * n.layer.k / n.halo_side,
                inner=(
                    # Of 32 places one has all taps of a row.
                    Steps("taps", lambda n: n.layer.k, anchor, per_step),
                ),
            ),
        ),
    )


def _range(what: str) -> Steps:
    return Steps(what, lambda n: n.halo_side - 1, "shared load")


def _spread(members: Callable[[Launch], int]) -> tuple[Steps, ...]:
    return (
        _range("least and most row"),
        _range("least and most column"),
        Steps(
            "add to image",
            lambda n: n.spread(n.halo_side**2 * members(n)),
            "global store",
            0,
            (
                Steps(
                    "rows that show it",
                    lambda n: n.at_edge() * n.halo_side,
                    inner=(
                        # A warp's pixels lie in about three rows.
                        Steps("columns that show it", lambda n: 3, "float"),
                    ),
                    never="float",
                ),
            ),
        ),
    )


_PRODUCT = Steps(
    "product",
    lambda n: (
        QUADS
        / n.product_parts()[0]
        * min(1.0, n.spread(math.prod(n.product_parts())))
    ),
    "ffma",
    64,
)
_FINISH = Steps(
    "write product",
    lambda n: n.spread(n.product_parts()[1] * 16),
    "global store",
    0,
    (Steps("add parts", lambda n: n.product_parts()[0], "float"),),
)
_AFFINE = Steps(
    "write scale and shift",
    lambda n: n.spread(2 * n.rows),
    "float",
    0,
)


def _lines(what: str, anchor_of_step: int) -> Steps:
    return Steps(
        what,
        lambda n: n.spread(n.layer.k * QUADS),
        inner=(Steps(what, lambda n: n.layer.k, "ffma", anchor_of_step),),
    )


def _stage_members(times: Callable[[Launch], float]) -> tuple[Steps, ...]:
    """Value and grad_output, for so many of the steps around."""
    halos = _stage_halos("copy halos", _members)
    grads = _stage_tile("copy grad_output", _members)
    return tuple(
        dataclasses.replace(s, trips=lambda n, s=s: times(n) * s.trips(n))
        for s in (halos, grads)
    )


def _correlate(times: Callable[[Launch], float]) -> Steps:
    """make_gradients, whose channels are at hand before."""
    return Steps(
        "planes",
        times,
        inner=(
            *_stage_members(lambda n: 0),
            Steps("four planes", lambda n: 2, inner=(_lines("correlate", 16),)),
        ),
    )


def _grouped(*inner: Steps) -> Steps:
    return Steps("weight channels", lambda n: 1 << n.group, inner=inner)


def _in_group(i: int) -> Callable[[Launch], int]:
    """Whether a group has a weight channel i: its loop is unrolled."""
    return lambda n: int(i < 1 << n.group)


def _only(times: Callable[[Launch], float], steps: Steps) -> Steps:
    return dataclasses.replace(steps, trips=lambda n: times(n) * steps.trips(n))


def _jobs(*inner: Steps) -> tuple[Steps, ...]:
    return (Steps("jobs", lambda n: 1, inner=inner),)


def _slabs(*inner: Steps) -> Steps:
    return Steps("slabs of the footprint", lambda n: 1, inner=inner)


def _of_tiles(*inner: Steps) -> Steps:
    return Steps("tiles", lambda n: n.tiles, inner=inner)


# ---- The kernels.

HIDDEN_FORWARD = _jobs(
    Steps(
        "channels of phi",
        lambda n: math.ceil(n.layer.R / _CENTRE),
        inner=(
            _stage_tile("copy phi", lambda n: min(n.layer.R, _CENTRE)),
            Steps(
                "centre",
                lambda n: n.spread(min(n.layer.R, _CENTRE) * QUADS),
                "ffma",
                36,
            ),
        ),
    ),
    _slabs(
        *_find(),
        Steps(
            "channels",
            lambda n: n.layer.R / n.channels,
            inner=(
                _stage_halos("copy halos", lambda n: n.channels),
                _copy(
                    "copy weights",
                    lambda n: n.copies(
                        n.channels * n.layer.K, n.threads / OWNED
                    ),
                ),
                Steps(
                    "copy scale and shift",
                    lambda n: n.spread(n.channels * n.layer.K),
                    "shared store",
                    0,
                ),
                Steps(
                    "lines",
                    lambda n: n.spread(n.channels * n.layer.k * QUADS),
                    inner=(Steps("hidden", lambda n: n.layer.k, "ffma", 36),),
                ),
            ),
        ),
    ),
    _add_parts(lambda n: n.slots, lambda n: 1),
    Steps("write nothing", lambda n: 0, "global store", 0),
)

CORE_FORWARD = _jobs(
    _slabs(
        *_find(),
        _stage_halos("copy halos", _members),
        _grouped(
            _mixed(lambda n: n.rows, transposed=True),
            _lines("aggregate", 32),
            _add_parts(
                lambda n: min(n.slots, n.layer.k), lambda n: 1, "shared store"
            ),
        ),
    ),
    _store_tile("write output", _members),
)

TAP_GRADIENTS = _jobs(
    _slabs(
        _of_tiles(
            *_find(),
            _stage_halo(),
            _mixed(lambda n: n.rows, transposed=False),
            _gather(1, "float"),
            *_spread(lambda n: 1),
        ),
        _AFFINE,
    ),
)

HIDDEN_WEIGHT_GRADIENTS = _jobs(
    _of_tiles(
        *_find(),
        _stage_tile("copy grad_hidden", lambda n: n.columns),
        _stage_halo(),
        Steps(
            "make taps",
            lambda n: n.spread(n.layer.K * QUADS),
            "shared store",
            0,
        ),
        _PRODUCT,
    ),
    _FINISH,
)

HIDDEN_GRADIENTS = _jobs(
    _slabs(
        *_find(),
        Steps(
            "weight channels",
            lambda n: n.layer.G,
            inner=(
                *_stage_members(lambda n: 1 / (1 << n.group)),
                _copy(
                    "copy weights",
                    lambda n: n.copies(n.layer.K * n.groups * OWNED, n.threads),
                ),
                _correlate(lambda n: 1),
                Steps(
                    "gradient of hidden",
                    lambda n: n.layer.K * n.groups / n.slots,
                    "ffma",
                    32,
                ),
            ),
        ),
    ),
    _add_parts(lambda n: n.slots // n.groups, lambda n: n.groups),
)

CORE_WEIGHT_GRADIENTS = _jobs(
    _of_tiles(
        *_find(),
        _stage_tile("copy hidden", lambda n: n.columns),
        *_stage_members(lambda n: 1),
        *(
            step
            for i in range(4)
            for step in (
                _correlate(_in_group(i)),
                _only(_in_group(i), _PRODUCT),
            )
        ),
    ),
    *(_only(_in_group(i), _FINISH) for i in range(4)),
)

VALUE_GRADIENTS = _jobs(
    _slabs(
        _of_tiles(
            *_find(),
            _stage_tile("copy grad_output", _members),
            _grouped(
                _mixed(lambda n: n.rows, transposed=True),
                _gather(8, "ffma"),
            ),
            *_spread(_members),
        ),
    ),
)

CENTRE_GRADIENTS = _jobs(
    _of_tiles(
        _stage_tile("copy phi", lambda n: n.taps),
        _stage_tile("copy grad_hidden", lambda n: n.columns),
        _mixed(lambda n: CENTRE_ROWS, transposed=False),
        Steps(
            "rectify",
            lambda n: n.taps / n.slots,
            "shared store",
            0,
        ),
        _PRODUCT,
    ),
    _AFFINE,
    _FINISH,
)
