"""An ablation as a picture: measured accuracies beside the published ones."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.sweep.report import Outcome

_MEASURED = "#1b6ca8"
_PUBLISHED = "#c05640"


def as_png(outcome: Outcome) -> bytes:
    """Draws a line for each row, the first at the top."""
    rows = outcome.plan.rows
    figure = Figure(figsize=(9, 1.5 + 0.26 * len(rows)), layout="constrained")
    measured, published = figure.subplots(1, 2, sharey=True)
    _draw_measured(measured, outcome)
    published.plot(
        [row.published_top1 for row in rows],
        range(len(rows)),
        "D",
        color=_PUBLISHED,
        ms=5,
    )
    measured.set_yticks(range(len(rows)), [row.row for row in rows])
    measured.set_ylim(len(rows) - 0.4, -0.6)
    measured.set_title(f"measured: {outcome.data}", fontsize=9)
    published.set_title("published: ImageNet", fontsize=9)
    for axes in (measured, published):
        axes.grid(color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("top-1, %", fontsize=8)
    image = io.BytesIO()
    # Without matplotlib's version the same figures are the same bytes.
    figure.savefig(image, format="png", dpi=120, metadata={"Software": None})
    return image.getvalue()


def _draw_measured(axes: Axes, outcome: Outcome) -> None:
    """A line for the interval, a dot for the mean, a small one for a seed."""
    for place, row in enumerate(outcome.plan.rows):
        found = outcome.measured.get(row.row)
        if found is None:
            continue
        seeds = found.top1_of_seeds
        axes.plot(found.interval, [place, place], color=_MEASURED, lw=1.5)
        axes.plot(found.top1, place, "o", color=_MEASURED, ms=6)
        axes.plot(seeds, [place] * len(seeds), ".", color="black", ms=4)
