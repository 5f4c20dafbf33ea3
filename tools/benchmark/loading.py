"""Subcommand input: san's loaders against a plain PIL loader.

Same files, same crops, same resizing; images per second of core time, that of
all threads together. The files are made here, of the size of ImageNet's.
"""

import collections
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from san.data import Data, TrainingLoader, ValidationLoader, load_split, plan
from san.data.folder import ImageIndex
from tools.benchmark.clocks import CoreClock
from tools.benchmark.measurement import Case, Contender, Entry, Settings

_BATCH = 32
_HEIGHT, _WIDTH = 375, 500  # Of the middle one of ImageNet's images.
_QUALITY = 90
# Two grey levels, as a part of the largest normalised value.
_TOLERANCE = 2 / 255 / 0.225 / 2.6

# Pixels and labels.
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    works = {
        "input, images per second and core": "train",
        "validation input, images per second and core": "val",
    }
    return [
        Entry(work, functools.partial(_case, work, split, settings))
        for work, split in works.items()
    ]


class PilImages(torch.utils.data.Dataset):
    """What the loaders of san give, image by image, with PIL and torch."""

    def __init__(
        self,
        index: ImageIndex,
        data: Data,
        order: np.ndarray,
        crops: plan.Crops,
    ) -> None:
        self._index = index
        self._order = order
        self._crops = crops
        self._side = data.image_size
        self._mean = torch.tensor(data.mean).view(3, 1, 1)
        self._std = torch.tensor(data.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image_number = self._order[i]
        name = self._index.paths[image_number]
        path = os.path.join(self._index.root, name)
        start = self._crops.corners[i] * self._crops.scales[i]
        end = start + self._side * self._crops.scales[i]
        with Image.open(path) as file:
            image = file.convert("RGB")
        if self._index.split == "train":
            top, left, height, width = self._crops.windows[i].tolist()
            image = image.crop((left, top, left + width, top + height))
        square = image.resize(
            (self._side, self._side),
            Image.Resampling.BILINEAR,
            box=(start[1], start[0], end[1], end[0]),
        )
        if self._crops.flips[i]:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # In place, which is faster than torchvision's own two transforms.
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        pixels = pixels.contiguous().float().div_(255)
        pixels.sub_(self._mean).div_(self._std)
        return pixels, int(self._index.labels[image_number])


def write_images(root: str, count: int) -> None:
    """Writes `count` JPEG files of about 100 kB into each split."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = os.path.join(root, split, "class")
        os.makedirs(folder)
        for number in range(count):
            _picture(random).save(
                os.path.join(folder, f"{number:04}.jpg"), quality=_QUALITY
            )


def _picture(random: np.random.Generator) -> Image.Image:
    """Large shapes and some grain, as a photograph has."""
    small = random.integers(0, 256, (12, 16, 3), np.uint8)
    shapes = Image.fromarray(small).resize(
        (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
    )
    grain = random.normal(0, 12, (_HEIGHT, _WIDTH, 1))
    pixels = np.asarray(shapes, np.float32) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@functools.cache
def _folder(count: int) -> tempfile.TemporaryDirectory:
    """A folder of images that is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="san_benchmark_")
    write_images(folder.name, count)
    return folder


def _case(work: str, split: str, settings: Settings) -> Case:
    root = _folder(64 if settings.quick else 256).name
    index = load_split(root, split, show_progress=False)
    data = Data(num_threads=settings.threads)
    ours, theirs = _loaders(index, data, settings.device)
    return Case(
        work=work,
        ours=_contender("ours", ours),
        peers=[
            _contender("PIL loader", lambda: theirs[0]),
            _contender("PIL loader, one worker", lambda: theirs[1]),
        ],
        reference=lambda: _pixels(theirs[0]),
        tolerance=_TOLERANCE,
        clock=CoreClock(),
    )


def _loaders(
    index: ImageIndex, data: Data, device: torch.device
) -> tuple[Callable[[], Batches], Sequence[Batches]]:
    """One epoch of san's loader; PIL loaders of the same images.

    The first of those decodes in this process, the second in a worker, as is
    usual; the first has nothing to send.
    """
    count = len(index)
    if index.split == "train":
        training = TrainingLoader(
            index, data, batch_size=_BATCH, seed=0, device=device
        )
        order = plan.epoch_order(0, 0, count)
        crops = plan.training_crops(
            order, index.heights[order], index.widths[order], 0, 0, data
        )

        def ours() -> Batches:
            return training.epoch(0)
    else:
        validation = ValidationLoader(
            index, data, batch_size=_BATCH, device=device
        )
        order = np.arange(count)
        crops = plan.validation_crops(index.heights, index.widths, data)

        def ours() -> Batches:
            return iter(validation)

    images = PilImages(index, data, order, crops)
    return ours, [
        torch.utils.data.DataLoader(
            images, batch_size=_BATCH, num_workers=workers
        )
        for workers in (0, 1)
    ]


def _contender(name: str, epoch: Callable[[], Batches]) -> Contender:
    """Takes each batch and lets it go, as training does."""
    return Contender(
        name,
        lambda: collections.deque(epoch(), maxlen=0),
        check=lambda: _pixels(epoch()),
    )


def _pixels(batches: Batches) -> torch.Tensor:
    return torch.cat([pixels.cpu() for pixels, _ in batches])
