"""Which images make a batch and how each is cropped: all the randomness.

Everything here is a pure function of the seed, the epoch and the image's
number. So any number of processes sees the same global batches, and an epoch
can be taken up again in its middle. No file is read here.
"""

import dataclasses

import numpy as np

from san.data.alterations import NUM_OPERATIONS, Alterations
from san.data.settings import Data

_ATTEMPTS = 10  # Of finding a training crop that fits, as published.

# Erased rectangles: part of the square's area, width / height; as published.
_ERASED_AREA = (0.02, 0.4)
_ERASED_ASPECT = (0.3, 1 / 0.3)

# What a stream of random numbers is for; keeps the streams apart.
_CROPS = 0
_ORDER = 1
_OPERATIONS = 2
_ERASING = 3


@dataclasses.dataclass(frozen=True)
class Crops:
    """What is cut from each of n images: windows, resized, then squares.

    Attributes:
      windows: int32 [n, 4], top, left, height, width of the decoded part, in
        pixels of the image file.
      scales: float64 [n, 2], pixels of the window for one pixel of the
        resized window, by axis.
      corners: int64 [n, 2], top, left of the network's square input in the
        resized window, in its pixels.
      flips: int32 [n], 1 for a mirrored square.
      alterations: of the squares, if there are any.
    """

    windows: np.ndarray
    scales: np.ndarray
    corners: np.ndarray
    flips: np.ndarray
    alterations: Alterations | None = None

    def __getitem__(self, images: slice) -> "Crops":
        """The crops of some of the images."""
        return Crops(
            self.windows[images],
            self.scales[images],
            self.corners[images],
            self.flips[images],
            self.alterations and self.alterations[images],
        )


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """A random order of all images, new in each epoch: int64 [num_images]."""
    return _generator(seed, epoch, _ORDER).permutation(num_images)


def rank_share(size: int, rank: int, world_size: int) -> slice:
    """Which part of a global batch is this process's; sizes differ by <= 1."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def training_crops(
    images: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    seed: int,
    epoch: int,
    data: Data,
) -> Crops:
    """Random crops and flips of some images, as torchvision draws them.

    RandomResizedCrop: the area is uniform, the aspect ratio log-uniform, the
    first of ten tries that fits is taken, else the largest centre crop whose
    aspect ratio is allowed.

    Args:
      images: int64 [n], numbers of the images in the data set.
      heights: [n], of the image files.
      widths: [n], of the image files.
      seed: of the training run.
      epoch: counted from zero.
      data: ranges of area and aspect ratio, and whether to flip.

    Returns:
      The crops, in the order of `images`.
    """
    # Four numbers for each attempt, one for the flip.
    draws = _draws(images, seed, epoch, _CROPS, 4 * _ATTEMPTS + 1)
    first, fits = _first_windows(
        draws[:, :-1],
        heights,
        widths,
        (data.min_crop_area, data.max_crop_area),
        (data.min_aspect, data.max_aspect),
    )
    centre = _centre_windows(heights, widths, data)
    windows = np.where(fits, first, centre)
    return Crops(
        windows.astype(np.int32),
        windows[:, 2:] / data.image_size,
        np.zeros((len(images), 2), np.int64),
        ((draws[:, -1] < 0.5) & data.flip).astype(np.int32),
        _alterations(images, seed, epoch, data),
    )


def _alterations(
    images: np.ndarray, seed: int, epoch: int, data: Data
) -> Alterations | None:
    """What is done to the squares of some images, if anything is.

    RandAugment: each operation and its sign are uniform. Erasing, where it is
    drawn: the rectangle is drawn as a crop is; none, if ten tries do not fit.
    Source: "Random Erasing Data Augmentation", AAAI 2020, algorithm 1.
    """
    operations, erasing = data.rand_augment_ops, data.random_erasing
    if not operations and not erasing:
        return None
    chosen = _draws(images, seed, epoch, _OPERATIONS, 2 * operations)
    draws = _draws(images, seed, epoch, _ERASING, 4 * _ATTEMPTS + 1)
    sides = np.full(len(images), data.image_size)
    erased, fits = _first_windows(
        draws[:, :-1], sides, sides, _ERASED_AREA, _ERASED_ASPECT
    )
    fits &= draws[:, -1:] < erasing
    return Alterations(
        (chosen[:, :operations] * NUM_OPERATIONS).astype(np.int32),
        (chosen[:, operations:] < 0.5).astype(np.int32),
        np.where(fits, erased, 0).astype(np.int64),
    )


def validation_crops(
    heights: np.ndarray, widths: np.ndarray, data: Data
) -> Crops:
    """The centre of each image after its short side became `resize_size`.

    Rounds as torchvision does: the resized long side is truncated, the
    centre's corner goes to the nearest integer, halves to the even one.

    Args:
      heights: [n], of the image files.
      widths: [n], of the image files.
      data: resize_size and image_size.

    Returns:
      The crops. Each window begins where the image does, so that the pixels
      of both resize alike, and ends where the filter of the square's last
      pixels does: what is right of it and below needs no decoding.
    """
    sizes = np.stack([heights, widths], axis=1).astype(np.int64)
    resized = data.resize_size * sizes // sizes.min(axis=1, keepdims=True)
    corners = np.rint((resized - data.image_size) / 2).astype(np.int64)
    scales = sizes / resized
    ends = (corners + data.image_size) * scales + np.maximum(scales, 1)
    ends = np.minimum(sizes, np.ceil(ends))
    return Crops(
        np.concatenate([np.zeros_like(sizes), ends], axis=1).astype(np.int32),
        scales,
        corners,
        np.zeros(len(sizes), np.int32),
    )


def _generator(
    seed: int, epoch: int, stream: int, image: int = 0
) -> np.random.Generator:
    # Philox is counter-based: making one costs no warm-up, and two that
    # differ in any of these numbers are independent. The lowest word of the
    # counter is the generator's own.
    return np.random.Generator(
        np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, image])
    )


def _draws(
    images: np.ndarray, seed: int, epoch: int, stream: int, count: int
) -> np.ndarray:
    """Uniform numbers in [0, 1), so many for each image: [n, count]."""
    draws = np.empty((len(images), count))
    for row, image in zip(draws, images, strict=True):
        _generator(seed, epoch, stream, int(image)).random(out=row)
    return draws


def _first_windows(
    draws: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    areas: tuple[float, float],
    aspects: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """The first of ten random windows that fits: [n, 4], and if one does.

    Args:
      draws: [n, 4 * 10], uniform.
      heights: [n], of what they lie in.
      widths: [n], likewise.
      areas: range of their part of its area.
      aspects: range of width / height, of which the logarithm is uniform.

    Returns:
      Windows, top, left, height, width; and bool [n, 1].
    """
    tries = draws.reshape(len(draws), 4, _ATTEMPTS)
    area, aspect, vertical, horizontal = np.moveaxis(tries, 1, 0)
    rows, columns = heights[:, None], widths[:, None]
    area = areas[0] + area * (areas[1] - areas[0])
    low, high = np.log(aspects)
    aspect = np.exp(low + aspect * (high - low))
    crop_rows = np.rint(np.sqrt(rows * columns * area / aspect))
    crop_columns = np.rint(np.sqrt(rows * columns * area * aspect))
    fits = (0 < crop_rows) & (crop_rows <= rows)
    fits &= (0 < crop_columns) & (crop_columns <= columns)
    top = np.floor(vertical * (rows - crop_rows + 1))
    left = np.floor(horizontal * (columns - crop_columns + 1))
    windows = np.stack([top, left, crop_rows, crop_columns], axis=-1)
    first = windows[np.arange(len(windows)), fits.argmax(axis=1)]
    return first, fits.any(axis=1, keepdims=True)


def _centre_windows(
    heights: np.ndarray, widths: np.ndarray, data: Data
) -> np.ndarray:
    """The largest centred windows of an allowed aspect ratio: [n, 4]."""
    rows = np.minimum(heights, np.rint(widths / data.min_aspect))
    columns = np.minimum(widths, np.rint(heights * data.max_aspect))
    rows, columns = np.maximum(rows, 1), np.maximum(columns, 1)
    top, left = (heights - rows) // 2, (widths - columns) // 2
    return np.stack([top, left, rows, columns], axis=-1)
