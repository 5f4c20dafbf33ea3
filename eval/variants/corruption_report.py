"""Errors on corrupted images as text, as JSON and as a table."""

import csv
import io
from collections.abc import Sequence

from eval.variants import corruptions
from eval.variants.corruption_errors import Trial
from eval.variants.corruptions import Corrupted
from san import data
from san.jobs import valid_json


def head(trial: Trial) -> str:
    """The lines above the corruptions.

    Args:
      trial: what is about to be tried.
    """
    epoch = trial.found.epoch
    trained = "" if epoch is None else f" (epoch {epoch})"
    size = data.Data().image_size
    severities = "".join(f"{s:>8}" for s in corruptions.SEVERITIES)
    return "\n".join(
        [
            f"{trial.path}{trained}",
            f"{corruptions.DEFINITION.title} ({corruptions.DEFINITION.source}):"
            f" top-1 errors by severity; images of {size} x {size} pixels as"
            " they are, neither resized nor cropped",
            f"{'corruption':<18}{severities}    mean      CE",
        ]
    )


def line(trial: Trial, one: Corrupted) -> str:
    """A corruption, for people.

    Args:
      trial: what is tried.
      one: its errors.
    """
    figures = [one.errors.get(severity) for severity in corruptions.SEVERITIES]
    normalised = one.normalised(trial.found.num_classes)
    cells = "".join(map(_cell, [*figures, one.error, normalised]))
    return f"{one.name:<18}{cells}"


def tail(trial: Trial, found: Sequence[Corrupted]) -> str:
    """The lines below the corruptions.

    Args:
      trial: what was tried.
      found: the errors.
    """
    counts = {count for one in found for count in one.num_images.values()}
    images = f"{min(counts)} images each"
    if len(counts) > 1:
        images = f"{min(counts)} to {max(counts)} images each"
    distributed = corruptions.DEFINITION.num_images
    if counts != {distributed}:
        images += f", NOT the {distributed} that it was distributed with"
    value = corruptions.mean(found, trial.found.num_classes)
    if value is None:
        why = corruptions.why_no_mean(found, trial.found.num_classes)
        return f"no mean corruption error (mCE): {why}\n{images}"
    return (
        f"mCE {value:.2f}%, the mean of the {len(corruptions.ALEXNET)} CE: the"
        f" error over AlexNet's\n{images}"
    )


def as_json(trial: Trial, found: Sequence[Corrupted]) -> str:
    """All figures, in percent.

    Args:
      trial: what was tried.
      found: the errors.
    """
    num_classes = trial.found.num_classes
    return valid_json.text_of(
        {
            "checkpoint": str(trial.path),
            "epoch": trial.found.epoch,
            "about": f"{corruptions.DEFINITION.title}"
            f" ({corruptions.DEFINITION.source})",
            "image_size": data.Data().image_size,
            "mce": corruptions.mean(found, num_classes),
            "why_no_mce": corruptions.why_no_mean(found, num_classes),
            "corruptions": {
                one.name: {
                    "error": one.error,
                    "ce": one.normalised(num_classes),
                    "severities": {
                        str(severity): {
                            "error": error,
                            "num_images": one.num_images[severity],
                        }
                        for severity, error in one.errors.items()
                    },
                }
                for one in found
            },
        }
    )


def as_csv(found: Sequence[Corrupted]) -> str:
    """A line for each corruption and severity; errors in percent.

    Args:
      found: the errors.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["corruption", "severity", "num_images", "error"])
    for one in found:
        for severity, error in one.errors.items():
            count = one.num_images[severity]
            writer.writerow([one.name, severity, count, error])
    return text.getvalue()


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>7.2f}%"
