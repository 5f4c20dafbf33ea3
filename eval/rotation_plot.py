"""A figure: accuracy over the angle by which images are rotated."""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.rotations import Accuracies
from eval.subject import Subject


def draw(
    path: pathlib.Path, found: Sequence[tuple[Subject, Accuracies]]
) -> None:
    """Draws a line for each network into a file.

    Args:
      path: of the file; its ending says the format.
      found: networks and their accuracies at angles.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for subject, accuracies in found:
        points = sorted(accuracies.angles.items())
        angles = [angle for angle, _ in points]
        top1 = [result.top1 for _, result in points]
        axes.plot(angles, top1, marker="o", markersize=3, label=subject.label)
    low, high = axes.get_xlim()
    quarters = [90 * n for n in range(-40, 41) if low <= 90 * n <= high]
    axes.set_xticks(quarters)
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_xlabel("rotation in degrees, clockwise")
    axes.set_ylabel("top-1 in percent")
    axes.set_ylim(0, 101)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
