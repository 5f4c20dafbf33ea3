"""ImageNet-C: the images of ImageNet, corrupted in kinds and severities.

Laid out as distributed, CORRUPTION/SEVERITY/CLASS/*.JPEG, the corruptions in
one folder or in those of their groups (noise, blur, weather, digital, extra).
Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019, section 4 (arXiv 1903.12261).
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from eval.variants.definitions import Variant
from san import data

# Of each corruption and severity.
DEFINITION = Variant(
    "ImageNet-C",
    'Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to'
    ' Common Corruptions and Perturbations", ICLR 2019',
    None,
    50_000,
)

# Top-1 errors of AlexNet, means over the severities, by which the corruption
# error is normalised. Source: google-research/augmix, imagenet.py, by the same
# author; equal to the means of the errors by severity that are given in
# hendrycks/robustness, issue 10.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}

# For tuning on; no part of the mean.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")

SEVERITIES = (1, 2, 3, 4, 5)

_GROUPS = ("noise", "blur", "weather", "digital", "extra")

_NUM_CLASSES = 1000  # Of which the errors of AlexNet are.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a folder of corruptions holds.

    Attributes:
      folders: of class folders, by corruption and severity.
      left_out: other folders there.
    """

    folders: dict[str, dict[int, str]]
    left_out: list[str]

    @property
    def missing(self) -> list[str]:
        """What the mean corruption error lacks, such as "snow 3"."""
        return _missing(self.folders)


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """A network's errors under one corruption.

    Attributes:
      name: of the corruption.
      errors: top-1 error in percent, by severity.
      num_images: by severity.
      digests: of which images they were, by severity.
    """

    name: str
    errors: dict[int, float]
    num_images: dict[int, int]
    digests: dict[int, str]

    @property
    def error(self) -> float | None:
        """The mean over the severities, in percent; None if one is missing."""
        if len(self.errors) < len(SEVERITIES):
            return None
        return sum(self.errors.values()) / len(SEVERITIES)

    def normalised(self, num_classes: int) -> float | None:
        """The corruption error CE, in percent: AlexNet has 100.

        The sum over the severities, of which AlexNet's is the denominator.

        Args:
          num_classes: of the network.

        Returns:
          CE; None where a severity is missing, or AlexNet's error is not known
          of this corruption or of as many classes.
        """
        known = num_classes == _NUM_CLASSES and self.name in ALEXNET
        if self.error is None or not known:
            return None
        return self.error / ALEXNET[self.name]


def find(root: pathlib.Path) -> Layout:
    """Finds the corruptions in a folder.

    Args:
      root: as distributed.

    Raises:
      ValueError: there are none, or one of them twice.
    """
    if not root.is_dir():
        raise ValueError(
            "eval: --data_dir must be a folder of corruptions, got"
            f" {root}, which is not there"
        )
    folders: dict[str, dict[int, str]] = {}
    left_out = []
    for group in ("", *_GROUPS):
        for name in _folders(root / group):
            if name in folders:
                raise ValueError(
                    "eval: --data_dir must hold each corruption once, got"
                    f" {name} twice in {root}"
                )
            if name in ALEXNET or name in EXTRA:
                folders[name], others = _severities(root / group / name)
                left_out += others
            elif group or name not in _GROUPS:
                left_out.append(str(root / group / name))
    if not any(folders.values()):
        raise ValueError(
            "eval: --data_dir must hold folders such as gaussian_noise/1/CLASS,"
            f" got none in {root}"
        )
    in_order = [name for name in (*ALEXNET, *EXTRA) if folders.get(name)]
    return Layout({name: folders[name] for name in in_order}, left_out)


def why_no_mean(found: Sequence[Corrupted], num_classes: int) -> str | None:
    """What keeps errors from having a mean corruption error; None if nothing.

    Args:
      found: of all corruptions that were tried.
      num_classes: of the network.
    """
    missing = _missing({one.name: one.errors for one in found})
    if missing:
        return f"without {', '.join(missing)}"
    if num_classes != _NUM_CLASSES:
        return (
            f"AlexNet's errors, its denominators, are of {_NUM_CLASSES} classes,"
            f" not of {num_classes}"
        )
    digests = {
        digest
        for one in found
        if one.name in ALEXNET
        for digest in one.digests.values()
    }
    if len(digests) > 1:
        counts = [
            f"{one.name} {severity} has {number}"
            for one in found
            for severity, number in one.num_images.items()
            if number < max(max(each.num_images.values()) for each in found)
        ]
        return (
            "the images are not the same everywhere"
            + (": " if counts else "")
            + data.first_few(counts)
        )
    return None


def mean(found: Sequence[Corrupted], num_classes: int) -> float | None:
    """The mean corruption error mCE, in percent.

    Over the fifteen corruptions, each of five severities; None where one is
    missing or AlexNet's errors are no measure.

    Args:
      found: of all corruptions that were tried.
      num_classes: of the network.
    """
    if why_no_mean(found, num_classes) is not None:
        return None
    each = [one.normalised(num_classes) for one in found]
    return sum(ce for ce in each if ce is not None) / len(ALEXNET)


def check_sizes(index: data.ImageIndex, image_size: int) -> None:
    """Corrupted images are cut to the network's size already.

    Resizing them smooths the corruption away, and flatters.

    Args:
      index: the images.
      image_size: side of the network's input, in pixels.

    Raises:
      ValueError: if one of them has another size.
    """
    others = (index.heights != image_size) | (index.widths != image_size)
    if others.any():
        number = int(others.argmax())
        raise ValueError(
            "eval: corrupted images must be as large as the network's input,"
            f" Data.image_size = {image_size}, since resizing would smooth the"
            f" corruption, got {index.heights[number]} x"
            f" {index.widths[number]} pixels in"
            f" {os.path.join(index.root, index.paths[number])}"
        )


def _missing(severities: Mapping[str, Mapping[int, object]]) -> list[str]:
    missing = []
    for name in ALEXNET:
        lacking = [
            str(severity)
            for severity in SEVERITIES
            if severity not in severities.get(name, {})
        ]
        if len(lacking) == len(SEVERITIES):
            missing.append(name)
        elif lacking:
            missing.append(f"{name} {' and '.join(lacking)}")
    return missing


def _severities(folder: pathlib.Path) -> tuple[dict[int, str], list[str]]:
    """Folders of the severities, and of what else lies there."""
    names = _folders(folder)
    known = {
        severity: str(folder / str(severity))
        for severity in SEVERITIES
        if str(severity) in names
    }
    others = [name for name in names if name not in map(str, SEVERITIES)]
    return known, [str(folder / name) for name in others]


def _folders(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
