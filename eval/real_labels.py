"""ReaL: all labels that people find right for ImageNet's validation images.

A prediction is right if it is one of them. Images without any are left out.
Source: Beyer et al., "Are we done with ImageNet?", 2020 (arXiv 2006.07159);
its real.json lists the labels, numbers of ImageNet's sorted classes, from
ILSVRC2012_val_00000001.JPEG on.
"""

import dataclasses
import json
import os
import pathlib
import re

import numpy as np

from eval import class_order
from san import data

# The images' own labels are among these for nine in ten of them. Where they
# rarely are, the list is of other images or other numbers of the classes.
_LEAST_AGREEMENT = 0.5

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """What a network is worth by these labels.

    Attributes:
      top1: images of which a label came first, in percent.
      num_images: number of images with labels.
      num_without: images without labels, which are left out.
    """

    top1: float
    num_images: int
    num_without: int


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of an index of images.

    Attributes:
      of_images: outputs of the network, for each image in its order.
    """

    of_images: list[frozenset[int]]

    def accuracy(self, predicted: np.ndarray) -> Accuracy:
        """The accuracy by these labels.

        Args:
          predicted: int64 [n], the class that came first for each image.
        """
        right = [
            prediction in labels
            for prediction, labels in zip(
                predicted.tolist(), self.of_images, strict=True
            )
            if labels
        ]
        return Accuracy(
            100 * sum(right) / len(right),
            len(right),
            len(self.of_images) - len(right),
        )


def read(path: pathlib.Path) -> list[list[int]]:
    """The labels of each validation image, from the first on.

    Args:
      path: real.json as it is published.

    Raises:
      ValueError: if it is something else.
    """
    try:
        lists = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(
            "eval: --real_labels must be the file real.json of"
            f" google-research/reassessed-imagenet, got {path}, which is not"
            " there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"eval: --real_labels must be a JSON file, got {path} ({error})"
        ) from error
    if not isinstance(lists, list) or not all(map(_is_labels, lists)):
        raise ValueError(
            "eval: --real_labels must be a list of lists of class numbers, one"
            f" for each validation image, got something else in {path}"
        )
    return lists


def of_images(lists: list[list[int]], index: data.ImageIndex) -> Labels:
    """The labels of the images of an index.

    Args:
      lists: as read() has them.
      index: ImageNet's validation images, or some of them, by ImageNet's names
        of files and classes; its classes are the network's outputs.

    Raises:
      ValueError: if the labels cannot be those of these images.
    """
    outputs = _outputs(index)
    most = max((label for labels in lists for label in labels), default=-1)
    if most >= len(outputs):
        raise ValueError(
            "eval: --real_labels must be numbers of the network's"
            f" {len(outputs)} classes, from 0, got {most}"
        )
    found = [
        frozenset(outputs[label] for label in lists[number - 1])
        for number in _numbers(index, len(lists))
    ]
    _check_plausible(found, index.labels)
    return Labels(found)


def _is_labels(entry: object) -> bool:
    return isinstance(entry, list) and all(
        isinstance(label, int) and not isinstance(label, bool) and label >= 0
        for label in entry
    )


def _outputs(index: data.ImageIndex) -> list[int]:
    """The network's output that is each of ImageNet's numbers of classes."""
    places = {name: place for place, name in enumerate(index.classes)}
    if class_order.are_synsets(index.classes):
        return [places[name] for name in sorted(index.classes)]
    if data.are_numbers(index.classes):
        by_number = {int(name): place for name, place in places.items()}
        if sorted(by_number) == list(range(len(places))):
            return [by_number[number] for number in sorted(by_number)]
    raise ValueError(
        "eval: --real_labels must come with class folders by ImageNet's names,"
        " such as n01440764, or by number from 0, got"
        f" {data.first_few(index.classes)}"
    )


def _numbers(index: data.ImageIndex, count: int) -> list[int]:
    """The number of each validation image, from 1."""
    numbers: dict[int, str] = {}
    for path in index.paths:
        match = _NUMBER.match(os.path.basename(path))
        if not match:
            raise ValueError(
                "eval: --real_labels must come with images that are named"
                f" ILSVRC2012_val_00000001.JPEG and so on, got {path}"
            )
        number = int(match[1])
        if not 1 <= number <= count:
            raise ValueError(
                "eval: --real_labels must list labels for every validation"
                f" image, got those of images 1 to {count} beside {path}"
            )
        if number in numbers:
            raise ValueError(
                "eval: --real_labels must come with each validation image"
                f" once, got {numbers[number]} and {path}"
            )
        numbers[number] = path
    return list(numbers)


def _check_plausible(found: list[frozenset[int]], own: np.ndarray) -> None:
    agree = [
        label in labels
        for label, labels in zip(own.tolist(), found, strict=True)
        if labels
    ]
    if not agree:
        raise ValueError(
            "eval: --real_labels must have a label for some image, got none"
        )
    part = sum(agree) / len(agree)
    if part < _LEAST_AGREEMENT:
        raise ValueError(
            "eval: --real_labels must be of these images, in ImageNet's order"
            " of images and of classes, got labels with the class folder among"
            f" them for only {100 * part:.2f}% of the images"
        )
