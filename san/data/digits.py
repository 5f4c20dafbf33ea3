"""Scikit-learn's handwritten digits as a data folder of JPEG files.

1,797 real images of 8 x 8 pixels, for trying the whole system in minutes.
"""

import dataclasses
import os
import tempfile

import gin
import numpy as np
from PIL import Image

NUM_FOLDS = 5

_NUM_VALIDATION = 360


@gin.configurable("digits", module="san")
@dataclasses.dataclass(frozen=True)
class Digits:
    """Which of the digits are held out for validation.

    Attributes:
      fold: None, or 0 to 4 for one of five parts, each with the same part of
        every class. Over the five, every image is held out once.
    """

    fold: int | None = None

    def __post_init__(self) -> None:
        """Checks the fold.

        Raises:
          ValueError: if there is none of that number.
        """
        folds = [None, *range(NUM_FOLDS)]
        if self.fold not in folds or isinstance(self.fold, bool | float):
            raise ValueError(
                f"digits: fold must be None or lie in 0..{NUM_FOLDS - 1}, got"
                f" {self.fold!r}"
            )


@gin.configurable(module="san")
def write_digits(
    work_folder: str, image_side: int = 32, jpeg_quality: int = 95
) -> str:
    """Writes the digits as JPEG files, once, in class folders 0 to 9.

    1,437 training and 360 validation images; the split is always the same
    and has the same part of every class. The gin binding digits.fold holds
    out others, see Digits.

    Args:
      work_folder: folder that the data folder is made in.
      image_side: height and width the images are enlarged to, in pixels.
      jpeg_quality: of the files, 1 to 95.

    Returns:
      The data folder. An existing one is taken as it is; it is whole, since
      it gets its name after the last file is written.

    Raises:
      ValueError: image_side, jpeg_quality or the fold is out of range.
    """
    fold = Digits().fold
    if image_side < 8:
        raise ValueError(
            f"write_digits: image_side must be at least 8, got {image_side}"
        )
    if not 1 <= jpeg_quality <= 95:
        raise ValueError(
            f"write_digits: jpeg_quality must lie in 1..95, got {jpeg_quality}"
        )
    name = f"digits_{image_side}px_quality{jpeg_quality}"
    if fold is not None:
        name += f"_fold{fold}"
    root = os.path.join(os.path.abspath(work_folder), name)
    if os.path.isdir(root):
        return root
    os.makedirs(work_folder, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=work_folder, prefix=".digits_", suffix=".tmp"
    ) as parent:
        unfinished = os.path.join(parent, name)
        _write_files(unfinished, image_side, jpeg_quality, fold)
        try:
            os.rename(unfinished, root)
        except OSError:
            # Another process was first, with the same files.
            if not os.path.isdir(root):
                raise
    return root


def _write_files(
    root: str, image_side: int, jpeg_quality: int, fold: int | None
) -> None:
    # Slow to import, and only used when there is something to write.
    from sklearn import datasets

    digits = datasets.load_digits()
    validation = _validation_images(digits.target, fold)
    for number, (values, label) in enumerate(
        zip(digits.images, digits.target, strict=True)
    ):
        split = "val" if number in validation else "train"
        folder = os.path.join(root, split, str(label))
        os.makedirs(folder, exist_ok=True)
        grey = np.rint(values * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).resize(
            (image_side, image_side), Image.Resampling.BICUBIC
        ).save(os.path.join(folder, f"{number:04}.jpg"), quality=jpeg_quality)


def _validation_images(labels: np.ndarray, fold: int | None) -> set[int]:
    """Every fifth image or so of the images in the order of their classes."""
    by_class = np.argsort(labels, kind="stable")
    if fold is not None:
        return set(by_class[fold::NUM_FOLDS].tolist())
    places = np.arange(_NUM_VALIDATION) * len(labels) // _NUM_VALIDATION
    return set(by_class[places].tolist())
