"""The page: findings in a template, which escapes every name."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jinja2

from eval.evaluation import Evaluation
from eval.outcomes import calibration
from eval.page import findings, pictures

_TEMPLATE = pathlib.Path(__file__).with_name("template.html")


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image on the page.

    Attributes:
      path: relative to the data folder.
      source: the small image itself.
      label: the true class.
      predicted: what it was taken for.
      confidence: of that, percent.
      probability: of the true class, percent.
    """

    path: str
    source: str
    label: str
    predicted: str
    confidence: float
    probability: float


def page(found: Evaluation, before: Evaluation | None = None) -> str:
    """One HTML page that contains all it shows.

    Args:
      found: the evaluation; its images are still there.
      before: another network's, on the same images.

    Raises:
      ValueError: if the two were not asked about the same images.
    """
    changes = findings.changes(found, before) if before else None
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=found.name or found.checkpoint.stem,
        found=_headline(found),
        before=_headline(before) if before else None,
        classes=findings.by_class(found, before),
        pairs=findings.confused_pairs(found),
        wrong=findings.confidently_wrong(found),
        sizes=findings.by_size(found),
        changes=changes,
        shown=functools.cache(functools.partial(_shown, found)),
    )


def _headline(found: Evaluation) -> dict[str, Any]:
    """The figures at the top, and what they belong to."""
    how_sure = calibration(found.outcomes)
    return {
        "checkpoint": str(found.checkpoint),
        "epoch": found.epoch,
        "data": os.path.join(found.index.root, found.index.split),
        "about": found.about,
        "real": found.real,
        "settings": found.settings,
        "result": found.result,
        "confidence": 100 * float(found.outcomes.confidences.mean()),
        "calibration": how_sure,
        "error": 100 * how_sure.error,
    }


def _shown(found: Evaluation, number: int) -> Shown:
    index, outcomes = found.index, found.outcomes
    path = index.paths[number]
    return Shown(
        path,
        pictures.data_uri(os.path.join(index.root, path)),
        found.classes[outcomes.labels[number]],
        found.classes[outcomes.predicted[number]],
        100 * float(outcomes.confidences[number]),
        100 * float(outcomes.probabilities[number]),
    )
