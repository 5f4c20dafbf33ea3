"""Brings class folders into the order of a network's outputs."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from san import data

_SYNSET = re.compile(r"n\d{8}")  # ImageNet's names; sorted, they are its order.


def in_checkpoint_order(
    checkpoint: dict[str, Any],
    num_classes: int,
    index: data.ImageIndex,
    *,
    say: bool,
) -> data.ImageIndex:
    """The images with the labels that the checkpoint's classes have.

    Args:
      checkpoint: of our own, which names its classes, or a published one.
      num_classes: outputs of its network.
      index: the images.
      say: print a line on stderr where the order may surprise.

    Raises:
      ValueError: the network's outputs are not the folder's classes.
    """
    if num_classes != len(index.classes):
        raise ValueError(
            f"eval: data folder must hold the network's {num_classes} classes,"
            f" got {len(index.classes)} class folders in {index.root}/val"
        )
    trained = class_names(checkpoint, num_classes)
    if trained is None:
        if say:
            say_assumed(index.classes)
        return index
    _check_names(trained, index)
    return reordered(index, trained, say=say)


def reordered(
    index: data.ImageIndex, trained: list[str], *, say: bool
) -> data.ImageIndex:
    """The images with the labels of classes that may be in another order.

    Args:
      index: the images.
      trained: its classes, in the order of the network's outputs.
      say: print a line on stderr if that is not the folder's.
    """
    if trained == index.classes:
        return index
    if say:
        print(
            "class folders are taken in the order of the checkpoint's classes,"
            f" {_ends(trained)}, not in that of the folder,"
            f" {_ends(index.classes)}",
            file=sys.stderr,
        )
    return index.in_order_of(trained)


def class_names(
    checkpoint: dict[str, Any], num_classes: int
) -> list[str] | None:
    """The names of a network's outputs; None if its checkpoint has none.

    Args:
      checkpoint: of our own, of another tool, or a published one.
      num_classes: outputs of its network.

    Raises:
      ValueError: there are more or fewer names than outputs.
    """
    names = _names(checkpoint, "classes") or _names(checkpoint, "class_to_idx")
    if names and len(names) != num_classes:
        raise ValueError(
            f"eval: the checkpoint must name its {num_classes} classes, got"
            f" {len(names)} names"
        )
    return names or None


def _names(checkpoint: dict[str, Any], entry: str) -> list[str] | None:
    """The names in the order of the outputs, if that is what an entry holds.

    A list, or numbers by name, as torchvision's class_to_idx. Other tools keep
    all kinds of things by these names.
    """
    classes = checkpoint.get(entry)
    if isinstance(classes, dict):
        numbers = list(classes.values())
        if not all(isinstance(number, int) for number in numbers):
            return None
        if sorted(numbers) != list(range(len(numbers))):
            return None
        classes = sorted(classes, key=classes.__getitem__)
    if not isinstance(classes, list | tuple):
        return None
    if not all(isinstance(name, str) for name in classes):
        return None
    return list(classes)


def are_synsets(classes: Sequence[str]) -> bool:
    """Whether all names are ImageNet's, whose order is known.

    Args:
      classes: names of classes.
    """
    return all(map(_SYNSET.fullmatch, classes))


def say_assumed(classes: Sequence[str]) -> None:
    """Says on stderr which order is assumed, unless it is ImageNet's own.

    Args:
      classes: names of class folders, in the order that is assumed.
    """
    if are_synsets(classes):
        return
    how = "number" if data.are_numbers(classes) else "name"
    print(
        "the checkpoint does not name its classes: they are taken to be the"
        f" class folders in the order of their {how}s, {_ends(classes)}",
        file=sys.stderr,
    )


def _ends(classes: Sequence[str]) -> str:
    if len(classes) <= 4:
        return ", ".join(classes)
    return f"{', '.join(classes[:3])} ... {classes[-1]}"


def _check_names(trained: Sequence[str], index: data.ImageIndex) -> None:
    if sorted(trained) == sorted(index.classes):
        return
    for label, (name, folder) in enumerate(
        zip(trained, index.classes, strict=True)
    ):
        if name != folder:
            raise ValueError(
                "eval: data folder must hold the classes that the network was"
                f" trained on, got {folder!r} in place of {name!r} as class"
                f" {label} in {index.root}/val"
            )
