"""Which images make a batch and how each is cropped: all the randomness.

Everything here is a pure function of the seed, the epoch and the image's
number. So any number of processes sees the same global batches, and an epoch
can be taken up again in its middle. No file is read here.
"""

import dataclasses

import numpy as np

from san.data.settings import Data

_ATTEMPTS = 10  # Of finding a training crop that fits, as published.

# What a stream of random numbers is for; keeps the streams apart.
_CROPS = 0
_ORDER = 1


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
    """

    windows: np.ndarray
    scales: np.ndarray
    corners: np.ndarray
    flips: np.ndarray

    def __getitem__(self, images: slice) -> "Crops":
        """The crops of some of the images."""
        return Crops(
            self.windows[images],
            self.scales[images],
            self.corners[images],
            self.flips[images],
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
    draws = _draws(images, seed, epoch)
    tries = draws[:, :-1].reshape(len(images), 4, _ATTEMPTS)
    windows, fits = _tried_windows(tries, heights, widths, data)
    first = windows[np.arange(len(images)), fits.argmax(axis=1)]
    centre = _centre_windows(heights, widths, data)
    windows = np.where(fits.any(axis=1, keepdims=True), first, centre)
    return Crops(
        windows.astype(np.int32),
        windows[:, 2:] / data.image_size,
        np.zeros((len(images), 2), np.int64),
        ((draws[:, -1] < 0.5) & data.flip).astype(np.int32),
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


def _draws(images: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    # Four numbers for each attempt, one for the flip.
    draws = np.empty((len(images), 4 * _ATTEMPTS + 1))
    for row, image in zip(draws, images, strict=True):
        _generator(seed, epoch, _CROPS, int(image)).random(out=row)
    return draws


def _tried_windows(
    tries: np.ndarray, heights: np.ndarray, widths: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """Windows [n, attempts, 4] and whether each lies in its image."""
    area, aspect, vertical, horizontal = np.moveaxis(tries, 1, 0)
    rows, columns = heights[:, None], widths[:, None]
    area = data.min_crop_area + area * (data.max_crop_area - data.min_crop_area)
    low, high = np.log(data.min_aspect), np.log(data.max_aspect)
    aspect = np.exp(low + aspect * (high - low))
    crop_rows = np.rint(np.sqrt(rows * columns * area / aspect))
    crop_columns = np.rint(np.sqrt(rows * columns * area * aspect))
    fits = (0 < crop_rows) & (crop_rows <= rows)
    fits &= (0 < crop_columns) & (crop_columns <= columns)
    top = np.floor(vertical * (rows - crop_rows + 1))
    left = np.floor(horizontal * (columns - crop_columns + 1))
    return np.stack([top, left, crop_rows, crop_columns], axis=-1), fits


def _centre_windows(
    heights: np.ndarray, widths: np.ndarray, data: Data
) -> np.ndarray:
    """The largest centred windows of an allowed aspect ratio: [n, 4]."""
    rows = np.minimum(heights, np.rint(widths / data.min_aspect))
    columns = np.minimum(widths, np.rint(heights * data.max_aspect))
    rows, columns = np.maximum(rows, 1), np.maximum(columns, 1)
    top, left = (heights - rows) // 2, (widths - columns) // 2
    return np.stack([top, left, rows, columns], axis=-1)
