"""What is worth looking at in an evaluation, of one network or of two."""

import dataclasses

import numpy as np

from eval.evaluation import Evaluation
from san import data

_NUM_PAIRS = 12
_NUM_PAIR_IMAGES = 4
_NUM_WRONG = 24
_NUM_CHANGED = 12
_NUM_SIZES = 5


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """A class, and how its images fared.

    Attributes:
      name: of the class.
      images: number of images.
      top1: percent.
      top5: percent.
      confidence: mean confidence, percent.
      before: top-1 of the other network, percent, if there is one.
    """

    name: str
    images: int
    top1: float
    top5: float
    confidence: float
    before: float | None


@dataclasses.dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another.

    Attributes:
      label: the true class.
      predicted: the other one.
      count: number of images.
      part: of the images of the true class, percent.
      images: numbers of some of them, the most confident first.
      example: number of an image that is of the other class, if there is one.
    """

    label: str
    predicted: str
    count: int
    part: float
    images: list[int]
    example: int | None


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """Images of about one size.

    Attributes:
      smallest: geometric mean of height and width, pixels.
      largest: likewise.
      images: number of images.
      top1: percent.
    """

    smallest: float
    largest: float
    images: int
    top1: float


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a network says otherwise than another.

    Attributes:
      gained: images that only it has right.
      lost: images that only the other has right.
      lost_images: numbers of some of the lost, the most confident first.
    """

    gained: int
    lost: int
    lost_images: list[int]


def by_class(found: Evaluation, before: Evaluation | None) -> list[ClassRow]:
    """A row for each class that has images, in the network's order."""
    labels, count = found.outcomes.labels, len(found.classes)
    images = np.bincount(labels, minlength=count)

    def percent(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(labels, weights=values, minlength=count)
        return 100 * sums / np.maximum(images, 1)

    top1 = percent(found.outcomes.correct)
    top5 = percent(found.outcomes.ranks < min(5, count))
    confidence = percent(found.outcomes.confidences)
    other = percent(before.outcomes.correct) if before else None
    return [
        ClassRow(
            name,
            int(images[label]),
            float(top1[label]),
            float(top5[label]),
            float(confidence[label]),
            None if other is None else float(other[label]),
        )
        for label, name in enumerate(found.classes)
        if images[label]
    ]


def confused_pairs(found: Evaluation) -> list[Pair]:
    """The classes that are most often taken for others."""
    outcomes, count = found.outcomes, len(found.classes)
    wrong = np.flatnonzero(~outcomes.correct)
    keys = outcomes.labels[wrong] * count + outcomes.predicted[wrong]
    pairs, counts = np.unique(keys, return_counts=True)
    most = np.lexsort([pairs, -counts])[:_NUM_PAIRS]
    rows = []
    for pair, number in zip(pairs[most], counts[most], strict=True):
        label, predicted = divmod(int(pair), count)
        examples = np.flatnonzero(
            outcomes.correct & (outcomes.labels == predicted)
        )
        rows.append(
            Pair(
                found.classes[label],
                found.classes[predicted],
                int(number),
                100 * number / np.sum(outcomes.labels == label),
                _most_confident(found, wrong[keys == pair], _NUM_PAIR_IMAGES),
                next(iter(_most_confident(found, examples, 1)), None),
            )
        )
    return rows


def confidently_wrong(found: Evaluation) -> list[int]:
    """Numbers of the images that it is wrong about and most sure of."""
    wrong = np.flatnonzero(~found.outcomes.correct)
    return _most_confident(found, wrong, _NUM_WRONG)


def by_size(found: Evaluation) -> list[SizeRow]:
    """Accuracy by size: five rows of about as many images, if sizes differ."""
    index = found.index
    sides = np.sqrt(index.heights * index.widths.astype(float))
    edges = np.quantile(sides, np.linspace(0, 1, _NUM_SIZES + 1)[1:-1])
    rows = np.searchsorted(np.unique(edges), sides, side="right")
    return [
        SizeRow(
            float(sides[rows == row].min()),
            float(sides[rows == row].max()),
            int(np.sum(rows == row)),
            100 * float(found.outcomes.correct[rows == row].mean()),
        )
        for row in np.unique(rows)
    ]


def changes(found: Evaluation, before: Evaluation) -> Changes:
    """What has changed.

    Raises:
      ValueError: if the two were not asked about the same images.
    """
    if not _same_images(found.index, before.index):
        raise ValueError(
            "eval: --against must be evaluated on the same images and classes,"
            f" got {len(before.index)} images of {len(before.classes)} classes"
            f" in {before.index.root} beside {len(found.index)} of"
            f" {len(found.classes)} in {found.index.root}"
        )
    now, then = found.outcomes.correct, before.outcomes.correct
    lost = np.flatnonzero(then & ~now)
    return Changes(
        int(np.sum(now & ~then)),
        len(lost),
        _most_confident(found, lost, _NUM_CHANGED),
    )


def _same_images(one: data.ImageIndex, other: data.ImageIndex) -> bool:
    return one.classes == other.classes and one.paths == other.paths


def _most_confident(
    found: Evaluation, images: np.ndarray, count: int
) -> list[int]:
    order = np.argsort(-found.outcomes.confidences[images], kind="stable")
    return images[order][:count].tolist()
