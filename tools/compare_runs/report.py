"""What differs between runs, and what came of it, as text."""

from collections.abc import Sequence

from tools.compare_runs.runs import Run
from train import messages

_WIDTH = 28  # Of a setting's value, at most.


def differences(runs: Sequence[Run]) -> str:
    """A row for each setting in which the runs are not the same.

    A default that only the end of a run writes down is compared where all
    runs have an end.
    """
    chosen = set().union(*(run.chosen for run in runs))
    known = set.intersection(*(set(run.settings) for run in runs))
    rows = [
        [name, *(run.settings.get(name, "-") for run in runs)]
        for name in sorted(chosen | known)
    ]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return "settings: the same"
    titles = ["settings that differ", *(run.name for run in runs)]
    return _aligned([titles, *rows])


def table(runs: Sequence[Run]) -> str:
    """A row for each run, and what is to be said of some."""
    titles = [
        *("run", "epochs", "best top-1", "(epoch)", "last top-1", "top-5"),
        *("loss", "training loss", "images/s", "time"),
    ]
    lines = ["", _aligned([titles, *map(_row, runs)])]
    lines += [
        f"{run.name}: no metrics.jsonl"
        + ("; these are its checkpoint's" if run.validations else " yet")
        for run in runs
        if not run.lines
    ]
    return "\n".join(lines)


def _row(run: Run) -> list[str]:
    best, last = run.best or {}, run.last or {}
    done = max(
        [*run.curve("train", "epochs_trained")[1], *run.validations, 0.0]
    )
    losses = run.curve("train", "loss")[1]
    speeds = run.curve("train", "images_per_second")[1]
    return [
        run.name,
        f"{done:.4g}" + (f" of {run.epochs}" if run.epochs else ""),
        *(_figure(best, "top1", ".2f"), _figure(best, "epoch", "")),
        *(_figure(last, "top1", ".2f"), _figure(last, "top5", ".2f")),
        _figure(last, "loss", ".4f"),
        f"{losses[-1]:.4f}" if losses else "-",
        f"{sum(speeds) / len(speeds):.0f}" if speeds else "-",
        messages.duration(run.seconds),
    ]


def _figure(figures: dict, name: str, form: str) -> str:
    return format(figures[name], form) if name in figures else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is flush left, the others right."""
    cut = [[_cut(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cut
    )


def _cut(text: str) -> str:
    """A text of which the end tells most, such as a path."""
    return text if len(text) <= _WIDTH else f"...{text[3 - _WIDTH :]}"
