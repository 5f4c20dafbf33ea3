"""Plots: the ratios of a report, or how cost grows. SVG or PNG."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tools.benchmark import accuracy, growth, targets
from tools.benchmark.rows import Row

_OURS = "#1b6ca8"
_WITHOUT_TARGET = "#9db8cc"
_PEER = "#c05640"
_FIRST_RATIO = 0.1  # A logarithm has no place for 0.
_TITLES = {
    "ops": "Operators",
    "core": "The attention core",
    "models": "Whole networks",
    "relations": "The relations, and what is not fused",
    "input": "Input pipeline",
    "startup": "Start, first calls and equal bits",
    "growth": "The pairwise core in training: how its cost grows",
    "twin": "SAN beside what one would run instead",
}


def draw(path: str, section: str, rows: Sequence[Row]) -> None:
    """Draws the rows of a subcommand into a file.

    Args:
      path: of the file; its ending says the format.
      section: the subcommand.
      rows: what was measured.
    """
    figure = _FIGURES.get(section, _ratios)(rows)
    figure.suptitle(_TITLES[section], fontsize=11)
    figure.savefig(path, bbox_inches="tight", dpi=120)


def _ratios(rows: Sequence[Row]) -> Figure:
    """A bar from 1 to each median, its range, floor and attainable."""
    shown = [row for row in rows if row.ratios][::-1]
    figure = Figure(figsize=(9, 1.6 + 0.24 * len(shown)), layout="constrained")
    _bars(figure.subplots(), shown)
    return figure


def _bars(axes: Axes, shown: Sequence[Row]) -> None:
    """The rows from below."""
    for place, row in enumerate(shown):
        _bar(axes, place, row)
    axes.set_yticks(
        range(len(shown)), [f"{row.work} / {row.peer}" for row in shown]
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high > 4 * low else range(1, 10)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high * 1.5)  # Room for the figures.
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.axvline(1, color="black", lw=0.8)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        "gain over the peer, or cost where less is better: median and range"
    )
    _legend(axes)


def _twin(rows: Sequence[Row]) -> Figure:
    """The rows that have a target; and time over accuracy, if it is there."""
    points = accuracy.points(rows)
    shown = [
        row
        for row in reversed(rows)
        if row.ratios and row.target and row.peer != targets.ONE_MB
    ]
    height = max(4.5, 1.6 + 0.24 * len(shown))
    figure = Figure(figsize=(14 if points else 9, height), layout="constrained")
    bars, *others = np.atleast_1d(figure.subplots(1, 2 if points else 1))
    _bars(bars, shown)
    for axes in others:
        accuracy.draw(axes, points)
    return figure


def _bar(axes: Axes, place: int, row: Row) -> None:
    ratios = [max(ratio, _FIRST_RATIO) for ratio in row.ratios]
    median = statistics.median(ratios)
    colour = _OURS if row.target else _WITHOUT_TARGET
    axes.barh(place, median - 1, left=1, height=0.6, color=colour)
    axes.plot([min(ratios), max(ratios)], [place, place], color="black", lw=0.8)
    right = max(1.0, *ratios)
    if row.target:
        for value, mark in (
            (row.target.floor, "|"),
            (row.target.attainable, "d"),
        ):
            if value > 0:
                axes.plot(value, place, mark, color=_PEER, ms=6)
                right = max(right, value)
    axes.annotate(
        f"{row.median:.3g}x",
        (right, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=6.5,
    )


def _legend(axes: Axes) -> None:
    for mark, label in (("|", "floor"), ("d", "attainable")):
        axes.plot([], [], mark, color=_PEER, ms=6, label=label)
    axes.barh(math.nan, math.nan, color=_OURS, label="has a target")
    axes.barh(math.nan, math.nan, color=_WITHOUT_TARGET, label="has none")
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        fontsize=7,
        frameon=False,
    )


def _growth(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    _panel(
        panels[0],
        *(rows, growth.BATCH_WORK, "images in the batch", "ms per image"),
        per_image=True,
    )
    _panel(panels[1], rows, growth.SIDE_WORK, "pixels", "ms for two images")
    _panel(
        panels[2],
        *(rows, growth.FOOTPRINT_WORK, "footprint", "MB saved per image"),
    )
    for panel, title in zip(
        panels,
        (
            "over the batch, 28 x 28 pixels: ideally flat",
            "over the pixels: ideally a line through zero",
            "saved for backward: ideally flat",
        ),
        strict=True,
    ):
        panel.set_title(title, fontsize=9)
        panel.grid(color="#dddddd", lw=0.6)
    panels[0].legend(fontsize=8)
    return figure


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    work: str,
    horizontal: str,
    vertical: str,
    per_image: bool = False,
) -> None:
    """Ours and the peer's over the number at the end of the work's name."""
    name = work.format("")
    points = sorted(
        (int(row.work.removeprefix(name)), row.ours, row.theirs)
        for row in rows
        if row.ratios and row.work.startswith(name)
    )
    for place, label, colour in ((1, "san", _OURS), (2, "eager", _PEER)):
        values = [p[place] / (p[0] if per_image else 1) for p in points]
        axes.plot(
            [p[0] for p in points], values, "o-", color=colour, label=label
        )
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


_FIGURES = {"growth": _growth, "twin": _twin}
