"""The curves of several runs in one picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from tools.compare_runs.runs import Run

ENDINGS = (".png", ".svg", ".pdf")


def draw(runs: Sequence[Run], form: str) -> bytes:
    """Draws losses and top-1 over epochs, a colour for each run.

    Args:
      runs: of which some have metrics.
      form: of the picture, "png" and the like.

    Raises:
      ValueError: if no run has any.
    """
    if not any(run.lines for run in runs):
        raise ValueError(
            "compare_runs: --output must be left out until a run has a"
            " metrics.jsonl, got none with one"
        )
    figure = Figure(figsize=(8, 7), layout="constrained")
    loss, top1 = figure.subplots(2, 1, sharex=True)
    for number, run in enumerate(runs):
        colour = f"C{number % 10}"
        loss.plot(*run.curve("train", "loss"), color=colour, lw=0.7, alpha=0.6)
        loss.plot(
            *run.curve("validation", "loss"),
            color=colour,
            marker="o",
            ms=3,
            label=run.name,
        )
        top1.plot(
            *run.curve("validation", "top1"), color=colour, marker="o", ms=3
        )
    loss.set_ylabel("loss: thin, training; dots, validation")
    top1.set_ylabel("validation top-1, %")
    top1.set_xlabel("epochs")
    loss.legend(frameon=False, fontsize=8)
    for axes in (loss, top1):
        axes.grid(color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=110)
    return picture.getvalue()
