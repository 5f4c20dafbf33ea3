"""Plots: the ratios of a report, or how cost grows. SVG or PNG."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.benchmark import growth
from tools.benchmark.rows import Row

_OURS = "#1b6ca8"
_PEER = "#c05640"


def draw(path: str, section: str, rows: Sequence[Row]) -> None:
    """Draws the rows of a subcommand into a file.

    Args:
      path: of the file; its ending says the format.
      section: the subcommand.
      rows: what was measured.
    """
    figure = _growth(rows) if section == "growth" else _ratios(rows)
    figure.savefig(path, bbox_inches="tight")


def _ratios(rows: Sequence[Row]) -> Figure:
    """A bar from 1 to each median, its range, floor and attainable."""
    shown = [row for row in rows if row.ratios][::-1]
    figure = Figure(figsize=(9, 1 + 0.24 * len(shown)))
    axes = figure.subplots()
    for place, row in enumerate(shown):
        low, high = min(row.ratios), max(row.ratios)
        colour = _OURS if row.target else "#9db8cc"
        axes.barh(place, row.median - 1, left=1, height=0.6, color=colour)
        axes.plot([low, high], [place, place], color="black", lw=0.8)
        if row.target:
            for value, mark in (
                (row.target.floor, "|"),
                (row.target.attainable, "d"),
            ):
                axes.plot(value, place, mark, color=_PEER, ms=7)
    axes.set_yticks(
        range(len(shown)), [f"{row.work} / {row.peer}" for row in shown]
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("ratio: median and range; | floor, ♦ attainable")
    axes.margins(y=0.01)
    return figure


def _growth(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(12, 3.5))
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
    panels[0].legend()
    figure.tight_layout()
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
