"""What the runs of a row reached, taken together.

The figure of a run is its last epoch's. The best epoch's would be chosen on
the very images that it is then measured on.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping

from train.checkpointing import Validation
from train.sweep.plan import Plan, Run

# Of the standard normal distribution, for 95%.
_Z = statistics.NormalDist().inv_cdf(0.975)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a row was measured to reach.

    Attributes:
      top1: percent; the mean over the seeds, of all images of the folds.
      top5: likewise.
      num_images: that each seed was validated on.
      interval: 95% of top1, lowest and highest, for other images like these.
      spread: standard deviation of top1 over the seeds; None of one seed.
      runs: the validation of each run.
    """

    top1: float
    top5: float
    num_images: int
    interval: tuple[float, float]
    spread: float | None
    runs: Mapping[Run, Validation]

    @property
    def top1_of_seeds(self) -> list[float]:
        """Top-1 of each seed over all folds, in percent."""
        return _of_seeds(self.runs, "top1")


def measure(
    plan: Plan, row: str, validations: Mapping[Run, Validation]
) -> Measured | None:
    """Takes a row's runs together; None unless all are there.

    Args:
      plan: which runs there should be.
      row: the row's name.
      validations: the runs that are complete, of other rows too.
    """
    runs = [run for run in plan.runs if run.row == row]
    if not all(run in validations for run in runs):
        return None
    found = {run: validations[run] for run in runs}
    top1 = _of_seeds(found, "top1")
    mean = statistics.fmean(top1)
    # The seeds share their images: more of them are not more images.
    num_images = sum(v.num_images for r, v in found.items() if r.seed == 0)
    return Measured(
        top1=mean,
        top5=statistics.fmean(_of_seeds(found, "top5")),
        num_images=num_images,
        interval=wilson_interval(mean, num_images),
        spread=statistics.stdev(top1) if len(top1) > 1 else None,
        runs=found,
    )


def wilson_interval(percent: float, count: int) -> tuple[float, float]:
    """The 95% interval of a part, in percent.

    Source: E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", 1927.

    Args:
      percent: the part that was found.
      count: out of how many.
    """
    part, square = percent / 100, _Z**2 / count
    centre = (part + square / 2) / (1 + square)
    half = math.sqrt(part * (1 - part) * square + square**2 / 4) / (1 + square)
    # Rounded, it still holds the part, within 0 and 100.
    low = min(max(100 * (centre - half), 0.0), percent)
    high = max(min(100 * (centre + half), 100.0), percent)
    return low, high


def _of_seeds(runs: Mapping[Run, Validation], name: str) -> list[float]:
    """A percentage over the folds of each seed."""
    return [
        sum(
            getattr(validation, name) * validation.num_images
            for run, validation in runs.items()
            if run.seed == seed
        )
        / sum(v.num_images for r, v in runs.items() if r.seed == seed)
        for seed in sorted({run.seed for run in runs})
    ]
