"""The images of one split of a data folder, as lists and arrays."""

import dataclasses
import hashlib
import os

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """The images of one split; image i has paths[i], labels[i], and so on.

    Attributes:
      root: the data folder, absolute.
      split: "train" or "val".
      classes: folder names, sorted; a label is a place in this list.
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
