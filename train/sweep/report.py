"""An ablation's progress, table and JSON: published figures beside measured."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from san.jobs import valid_json
from train import messages
from train.sweep.figures import Measured
from train.sweep.job import Job
from train.sweep.plan import Plan

_PUBLISHED = "ImageNet, published"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an ablation led to.

    Attributes:
      plan: its runs.
      data: the images, for people.
      measured: what each row reached, where all its runs are complete.
      errors: of the rows that failed.
    """

    plan: Plan
    data: str
    measured: Mapping[str, Measured]
    errors: Mapping[str, str]


class Progress:
    """Says on stderr which run begins and what it reached."""

    def __init__(self, plan: Plan, num_left: int, num_parallel: int):
        """Says how much there is to do.

        Args:
          plan: all runs.
          num_left: those that are not complete.
          num_parallel: how many are trained at the same time.
        """
        self._plan = plan
        self._num_left = num_left
        self._num_done = 0
        self._begin = time.monotonic()
        print(
            f"{len(plan.runs)} runs, {len(plan.runs) - num_left} of them"
            f" complete, {num_parallel} at a time",
            file=sys.stderr,
        )

    def started(self, job: Job) -> None:
        """Says where the run's own messages are."""
        self._print(job, f"training, messages in {job.log}")

    def finished(self, job: Job) -> None:
        """Says what the run reached, and when all will be complete."""
        self._num_done += 1
        self._num_left -= 1
        seconds = (time.monotonic() - self._begin) / self._num_done
        left = messages.duration(seconds * self._num_left)
        validation = job.finished()
        assert validation is not None
        self._print(job, f"top-1 {validation.top1:.2f}%, about {left} left")

    def failed(self, job: Job, error: str) -> None:
        """Says why."""
        self._num_left -= 1
        self._print(job, f"failed: {error}")

    def _print(self, job: Job, text: str) -> None:
        place = self._plan.place(job.run)
        print(f"{place}: {job.run.row}: {text}", file=sys.stderr)


def as_text(outcome: Outcome) -> str:
    """The table, for people."""
    plan = outcome.plan
    names = [row.row for row in plan.rows]
    width = max(map(len, names))
    seeds = "1 seed" if plan.num_seeds == 1 else f"{plan.num_seeds} seeds"
    lines = [
        f"measured: on {outcome.data}, {seeds}, last epoch",
        f"{'':<{width}} {_PUBLISHED:>19}{'measured':>34}",
        f"{'row':<{width}} {'top-1':>10}{'top-5':>9}{'top-1':>10}"
        f"{'95% interval':>16}{'spread':>8}",
    ]
    for row in plan.rows:
        lines.append(
            f"{row.row:<{width}} {row.published_top1:>9.1f}%"
            f"{row.published_top5:>8.1f}%"
            + _measured_cells(outcome.measured.get(row.row))
        )
    lines += [
        f"failed: {name}: {error}" for name, error in outcome.errors.items()
    ]
    return "\n".join(lines)


def _measured_cells(measured: Measured | None) -> str:
    if measured is None:
        return f"{'-':>10}{'-':>16}{'-':>8}"
    low, high = measured.interval
    spread = "-" if measured.spread is None else f"{measured.spread:.2f}"
    return f"{measured.top1:>9.2f}%{f'{low:.2f} to {high:.2f}':>16}{spread:>8}"


def as_json(outcome: Outcome) -> str:
    """All figures; accuracies in percent."""
    return valid_json.text_of(_figures(outcome))


def _figures(outcome: Outcome) -> dict[str, Any]:
    plan = outcome.plan
    return {
        "data": outcome.data,
        "seeds": plan.num_seeds,
        "folds": plan.num_folds,
        "rows": [
            {
                "row": row.row,
                "table": row.table,
                "published_top1": row.published_top1,
                "published_top5": row.published_top5,
                "measured": _measured(outcome, row.row),
                "error": outcome.errors.get(row.row),
            }
            for row in plan.rows
        ],
    }


def _measured(outcome: Outcome, name: str) -> dict[str, Any] | None:
    measured = outcome.measured.get(name)
    if measured is None:
        return None
    return {
        "data": outcome.data,
        "top1": measured.top1,
        "top5": measured.top5,
        "num_images": measured.num_images,
        "interval": list(measured.interval),
        "spread": measured.spread,
        "top1_of_seeds": measured.top1_of_seeds,
        "runs": _runs(measured),
    }


def _runs(measured: Measured) -> Sequence[dict[str, Any]]:
    return [
        {
            "seed": run.seed,
            "fold": run.fold,
            "epoch": validation.epoch,
            "top1": validation.top1,
            "top5": validation.top5,
            "loss": validation.loss,
            "num_images": validation.num_images,
        }
        for run, validation in measured.runs.items()
    ]
