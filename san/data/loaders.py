"""Batches of a data set, for training and for validation.

Says which images each process gets and in which order; plan.py draws the
crops, pipeline.py decodes.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from san.data import plan
from san.data.errors import DataError
from san.data.index import ImageIndex
from san.data.pipeline import ImagePipeline
from san.data.settings import Data

# float32 [n, 3, image_size, image_size] and int64 [n], on the device.
LabelledBatch = tuple[torch.Tensor, torch.Tensor]


class TrainingLoader:
    """Shuffled, cropped and flipped batches of the training images.

    Global batch i of an epoch is the same for any number of processes; each
    process gets its share of it (sizes differ by at most one). The last
    images of an epoch that do not fill a batch are left out of it.

    Attributes:
      steps_per_epoch: number of batches in an epoch, the same on every rank.
      share: this process's part of each batch.
    """

    def __init__(
        self,
        index: ImageIndex,
        data: Data,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str,
    ) -> None:
        """Prepares the loader.

        Args:
          index: the training images.
          data: image size, crops and normalisation.
          batch_size: images in a batch over all processes together.
          seed: what order, crops and flips are drawn from.
          rank: of this process, from 0.
          world_size: number of processes.
          device: where the batches go.

        Raises:
          DataError: there are fewer images than one batch takes.
          ValueError: batch_size, rank or world_size make no sense.
        """
        _check_rank("TrainingLoader", rank, world_size)
        if batch_size < world_size:
            raise ValueError(
                "TrainingLoader: batch_size must be at least the number of"
                f" processes ({world_size}), got {batch_size}"
            )
        if batch_size > len(index):
            raise DataError(
                f"TrainingLoader: batch_size must be at most {len(index)},"
                f" the number of images in {index.root}/{index.split},"
                f" got {batch_size}"
            )
        self.steps_per_epoch = len(index) // batch_size
        self._index = index
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self.share = plan.rank_share(batch_size, rank, world_size)
        self._pipeline = ImagePipeline(
            data, self.share.stop - self.share.start, device
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[LabelledBatch]:
        """The batches of one epoch.

        Args:
          epoch: counted from zero.
          first_step: batches to leave out at the beginning, to go on from
            the middle of an epoch.

        Returns:
          An iterator over this process's share of each batch.

        Raises:
          ValueError: first_step lies outside the epoch.
          DataError: (when iterated) a file cannot be decoded.
        """
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(
                "TrainingLoader.epoch: first_step must lie in 0"
                f"..{self.steps_per_epoch}, got {first_step}"
            )
        order = plan.epoch_order(self._seed, epoch, len(self._index))
        batches = [
            order[step * self._batch_size :][: self._batch_size][self.share]
            for step in range(first_step, self.steps_per_epoch)
        ]

        def crops(images: np.ndarray) -> plan.Crops:
            return plan.training_crops(
                images,
                self._index.heights[images],
                self._index.widths[images],
                self._seed,
                epoch,
                self._data,
            )

        return _decode(self._pipeline, self._index, batches, crops)


class ValidationLoader:
    """The validation images, each exactly once over all processes.

    Ranks get up to one image more or less and so may get one batch more or
    less: sum over ranks, do not average.

    Attributes:
      numbers: for each batch, which images of the index it holds: int64 [n].
    """

    def __init__(
        self,
        index: ImageIndex,
        data: Data,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str,
    ) -> None:
        """Prepares the loader.

        Args:
          index: the validation images.
          data: sizes and normalisation.
          batch_size: images in a batch of this process.
          rank: of this process, from 0.
          world_size: number of processes.
          device: where the batches go.

        Raises:
          ValueError: batch_size, rank or world_size make no sense.
        """
        _check_rank("ValidationLoader", rank, world_size)
        if batch_size < 1:
            raise ValueError(
                "ValidationLoader: batch_size must be at least 1, got"
                f" {batch_size}"
            )
        mine = np.arange(rank, len(index), world_size)
        self.numbers = [
            mine[start : start + batch_size]
            for start in range(0, len(mine), batch_size)
        ]
        self._index = index
        self._data = data
        self._pipeline = ImagePipeline(data, batch_size, device)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[LabelledBatch]:
        def crops(images: np.ndarray) -> plan.Crops:
            return plan.validation_crops(
                self._index.heights[images],
                self._index.widths[images],
                self._data,
            )

        return _decode(self._pipeline, self._index, self.numbers, crops)


def _decode(
    pipeline: ImagePipeline,
    index: ImageIndex,
    batches: Sequence[np.ndarray],
    crops: Callable[[np.ndarray], plan.Crops],
) -> Iterator[LabelledBatch]:
    planned = (
        (
            [os.path.join(index.root, index.paths[i]) for i in images],
            crops(images),
        )
        for images in batches
    )
    for images, pixels in zip(batches, pipeline.run(planned), strict=True):
        labels = torch.from_numpy(index.labels[images])
        yield pixels, labels.to(pixels.device, non_blocking=True)


def _check_rank(loader: str, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(
            f"{loader}: rank must lie in 0..{world_size - 1}, got {rank}"
        )
