"""A plot of the time of an image over the published accuracy of its network."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

import san
from tools.benchmark import targets
from tools.benchmark.rows import Row

BATCH = 8
_DTYPE, _THREADS = "float32", 1
# Label, colour, and where the names stand: lines of pairwise networks and of
# ResNets run side by side.
_KINDS = {
    "pair": ("SAN, pairwise, ours", "#1b6ca8", (7, -11), "left"),
    "patch": ("SAN, patchwise, ours", "#3a9e6e", (-7, 4), "right"),
    "conv": ("ResNet, its best way", "#c05640", (-7, 4), "right"),
}


class Point(NamedTuple):
    """A network of the paper's table 3.

    Attributes:
      name: one of san.list_models().
      kind: "pair", "patch" or "conv".
      milliseconds: of an image.
      top1: percent, as published.
    """

    name: str
    kind: str
    milliseconds: float
    top1: float


def points(rows: Sequence[Row]) -> list[Point]:
    """The networks whose time is among the rows of subcommand twin."""
    times = {}
    for row in rows:
        network, _, _ = row.work.partition(" ")
        if row.work != _work(network) or not row.ratios:
            continue
        times[network] = row.ours
        for name in san.list_models():
            if row.peer == targets.best_of(name):
                times[name] = row.theirs
    return [
        Point(row.model, row.kind, time / BATCH, row.published_top1)
        for row in san.paper_rows()
        if row.model
        for time in (times.get(row.model),)
        if time is not None
    ]


def draw(axes: Axes, drawn: Sequence[Point]) -> None:
    """A line of points for each kind."""
    for kind, (label, colour, place, side) in _KINDS.items():
        line = [point for point in drawn if point.kind == kind]
        x, y = [p.milliseconds for p in line], [p.top1 for p in line]
        axes.plot(x, y, "o-", color=colour, label=label)
        for point in line:
            axes.annotate(
                f"{point.name}, {point.milliseconds:.0f} ms",
                (point.milliseconds, point.top1),
                xytext=place,
                textcoords="offset points",
                ha=side,
                color=colour,
                fontsize=7,
            )
    axes.set_xlabel(f"ms an image: batch {BATCH}, {_DTYPE}, one thread; median")
    axes.set_ylabel("published top-1 on ImageNet, %; not measured here")
    axes.set_xlim(0, 1.25 * max(point.milliseconds for point in drawn))
    axes.grid(color="#dddddd", lw=0.6)
    axes.legend(fontsize=8, loc="lower right")


def _work(network: str) -> str:
    return targets.twin_work(network, "inference", BATCH, _DTYPE, _THREADS)
