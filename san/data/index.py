"""The images of one split of a data folder, as lists and arrays."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from san.data.errors import first_few


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """The images of one split; image i has paths[i], labels[i], and so on.

    Attributes:
      root: the data folder, absolute.
      split: "train" or "val", or "" where root holds the class folders itself.
      classes: folder names, sorted, by number where all of them are numbers;
        a label is a place in this list.
      paths: of the image files, relative to root, by class and name.
      labels: int64 [n].
      heights: int64 [n], pixels.
      widths: int64 [n], pixels.
    """

    root: str
    split: str
    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def digest(self) -> str:
        """Which images these are, in which order, in 32 hex digits."""
        text = "\0".join(self.paths)
        return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()

    def part(self, numbers: np.ndarray) -> "ImageIndex":
        """Some of the images.

        Args:
          numbers: which, in their new order.
        """
        return dataclasses.replace(
            self,
            paths=[self.paths[number] for number in numbers],
            labels=self.labels[numbers],
            heights=self.heights[numbers],
            widths=self.widths[numbers],
        )

    def in_order_of(self, classes: Sequence[str]) -> "ImageIndex":
        """The same images where labels are places in another list.

        Args:
          classes: the same names in another order.

        Raises:
          ValueError: the names are not the same.
        """
        if sorted(classes) != sorted(self.classes):
            raise ValueError(
                "ImageIndex: classes must be those of the folder in another"
                f" order, got {first_few(classes)}"
            )
        new_label = {name: label for label, name in enumerate(classes)}
        labels = np.array([new_label[name] for name in self.classes])
        labels = labels[self.labels]
        moved = dataclasses.replace(self, classes=list(classes), labels=labels)
        return moved.part(np.argsort(labels, kind="stable"))
