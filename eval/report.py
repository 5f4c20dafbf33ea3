"""An evaluation as text, as JSON and as a table of its classes."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from eval.evaluation import Evaluation
from eval.outcomes import calibration
from san.jobs import valid_json

# With more classes than this, only the worst and the best are printed.
_MAX_LISTED = 20
_NUM_ENDS = 5


def as_text(evaluation: Evaluation) -> str:
    """The figures, for people."""
    result = evaluation.result
    epoch = evaluation.epoch
    trained = "" if epoch is None else f" (epoch {epoch})"
    return "\n".join(
        [
            f"{evaluation.checkpoint}{trained}",
            *_about(evaluation),
            f"top-1   {result.top1:6.2f}%",
            *_real(evaluation),
            f"top-5   {result.top5:6.2f}%",
            f"loss    {result.loss:7.4f}",
            f"ECE     {_calibration_error(evaluation):6.2f}%"
            f"    mean confidence {_confidence(evaluation):.2f}%",
            f"images  {result.num_images:4d}"
            f"    {result.images_per_second:.0f} images/s",
            "",
            *_class_lines(evaluation),
        ]
    )


def by_size_as_text(evaluations: Sequence[Evaluation]) -> str:
    """A line for each size of the same network's input."""
    lines = [
        f"{one.settings.image_size:>6}{one.settings.resize_size:>9}"
        f"{one.result.top1:>9.2f}%{one.result.top5:>8.2f}%"
        f"{one.result.loss:>9.4f}{one.result.images_per_second:>10.0f}"
        + (f"{one.real.top1:>8.2f}%" if one.real else "")
        for one in evaluations
    ]
    return "\n".join(
        [
            f"{evaluations[0].checkpoint}",
            *_about(evaluations[0]),
            "  size  resized     top-1    top-5     loss  images/s"
            + ("     ReaL" if evaluations[0].real else ""),
            *lines,
        ]
    )


def as_json(evaluations: Evaluation | Sequence[Evaluation]) -> str:
    """All figures, of one or in a list; accuracies in percent."""
    if isinstance(evaluations, Evaluation):
        return valid_json.text_of(_figures(evaluations))
    return valid_json.text_of([_figures(one) for one in evaluations])


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    result = evaluation.result
    return {
        "checkpoint": str(evaluation.checkpoint),
        "epoch": evaluation.epoch,
        "about": evaluation.about,
        "top1": result.top1,
        "top5": result.top5,
        "loss": result.loss,
        "confidence": _confidence(evaluation),
        "calibration_error": _calibration_error(evaluation),
        "num_images": result.num_images,
        "images_per_second": result.images_per_second,
        "image_size": evaluation.settings.image_size,
        "resize_size": evaluation.settings.resize_size,
        "real": evaluation.real and dataclasses.asdict(evaluation.real),
        "per_class": _per_class(evaluation),
    }


def as_csv(evaluation: Evaluation) -> str:
    """A line for each class; accuracies in percent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "num_images", "top1", "top5"])
    for name, figures in _per_class(evaluation).items():
        columns = ("num_images", "top1", "top5")
        writer.writerow([name, *(figures[column] for column in columns)])
    return text.getvalue()


def _about(evaluation: Evaluation) -> list[str]:
    return [] if evaluation.about is None else [evaluation.about]


def _real(evaluation: Evaluation) -> list[str]:
    real = evaluation.real
    if real is None:
        return []
    return [
        f"ReaL    {real.top1:6.2f}%    {real.num_images} images;"
        f" {real.num_without} without labels left out"
    ]


def _confidence(evaluation: Evaluation) -> float:
    return 100 * float(evaluation.outcomes.confidences.mean())


def _calibration_error(evaluation: Evaluation) -> float:
    return 100 * calibration(evaluation.outcomes).error


def _per_class(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The figures of each class that has images."""
    result = evaluation.result
    rows = zip(
        evaluation.classes,
        result.images,
        result.correct1,
        result.correct5,
        strict=True,
    )
    return {
        name: {
            "top1": 100.0 * first / images,
            "top5": 100.0 * among / images,
            "num_images": images,
        }
        for name, images, first, among in rows
        if images
    }


def _class_lines(evaluation: Evaluation) -> list[str]:
    figures = _per_class(evaluation)
    names = list(figures)
    gap = len(names)
    if len(names) > _MAX_LISTED:
        names.sort(key=lambda name: figures[name]["top1"])
        names = names[:_NUM_ENDS] + names[-_NUM_ENDS:]
        gap = _NUM_ENDS
    width = max(map(len, [*names, "class"]))
    lines = [
        f"{name:<{width}}  {figures[name]['num_images']:>6}"
        f"{figures[name]['top1']:>8.2f}%{figures[name]['top5']:>8.2f}%"
        for name in names
    ]
    if gap < len(lines):
        hidden = len(figures) - len(lines)
        lines.insert(gap, f"... {hidden} classes between the worst and best")
    return [f"{'class':<{width}}  images    top-1    top-5", *lines]
