"""Files in, network input out, by NVIDIA DALI.

Reads and decodes the windows that plan.py decided on, on the CPU or, for a CUDA
device, with nvJPEG; resizing.py and, where it is asked for, rand_augment.py do
the rest. Knows no data set, no labels and no randomness. Pixels equal PIL's
within one grey level, but for images of 16 bits, which PIL clips.
"""

import collections
import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import DataNode, Pipeline

from san.data.alterations import Alterations, erase
from san.data.errors import DataError, first_few
from san.data.plan import Crops
from san.data.rand_augment import RandAugment
from san.data.resizing import Resizer
from san.data.settings import Data

# A batch to decode: n files and what is cut from each.
Batch = tuple[list[str], Crops]

_PREFETCH = 2  # Batches decoded ahead of the one in use.

# nvJPEG: buffers that hold the largest ImageNet image, so that they are
# allocated once; chroma upsampled as on the CPU; the part of the images that
# goes to the hardware decoder of GPUs that have one.
_MIXED_DECODER = {
    "device": "mixed",
    "device_memory_padding": 211025920,
    "host_memory_padding": 140544512,
    "jpeg_fancy_upsampling": True,
    "hw_decoder_load": 0.65,
}


class ImagePipeline:
    """Turns planned batches into tensors, decoding some batches ahead.

    A run that went to its end leaves its DALI pipeline to the next run.

    Attributes:
      data: image size, mean, std and number of threads.
      max_batch_size: largest number of images in a batch.
      device: where the tensors lie; on CUDA also where images are decoded.
    """

    def __init__(
        self, data: Data, max_batch_size: int, device: torch.device | str
    ) -> None:
        self.data = data
        self.max_batch_size = max_batch_size
        self.device = torch.device(device)
        self._resizer = Resizer(data, self.device)
        self._rand_augment: RandAugment | None = None
        self._idle: tuple[Pipeline, _Feed] | None = None

    def run(self, batches: Iterable[Batch]) -> Iterator[torch.Tensor]:
        """Decodes batches and makes the network's input of them.

        Args:
          batches: files and crops, taken as they are needed.

        Yields:
          float32 [n, 3, image_size, image_size] for each batch, in order.

        Raises:
          DataError: a file cannot be decoded; names it.
        """
        for windows, crops in self._decoded(batches):
            if crops.alterations is None:
                yield self._resizer(windows, crops)
            else:
                yield self._altered(windows, crops, crops.alterations)

    def _altered(
        self,
        windows: list[torch.Tensor],
        crops: Crops,
        alterations: Alterations,
    ) -> torch.Tensor:
        if self.data.rand_augment_ops:
            if self._rand_augment is None:
                self._rand_augment = RandAugment(
                    self.data,
                    self.max_batch_size,
                    self._num_threads(),
                    self._device_id(),
                )
            squares = self._resizer.squares(windows, crops)
            squares = self._rand_augment(squares, alterations)
            batch = self._resizer.normalized(squares)
        else:
            batch = self._resizer(windows, crops)
        erase(batch, alterations)
        return batch

    def windows(self, batches: Iterable[Batch]) -> Iterator[list[torch.Tensor]]:
        """Decodes batches and resizes nothing.

        Args:
          batches: files and crops, of which the windows count.

        Yields:
          For each batch, in order, its windows: uint8 [height, width, 3],
          which change when the next batch is asked for.

        Raises:
          DataError: a file cannot be decoded; names it.
        """
        for windows, _ in self._decoded(batches):
            yield windows

    def _decoded(
        self, batches: Iterable[Batch]
    ) -> Iterator[tuple[list[torch.Tensor], Crops]]:
        # While this run lasts, or if it is abandoned, the pipeline is its
        # own: batches on their way in it belong to nobody else.
        pipeline, feed = self._idle or self._build(self.max_batch_size)
        self._idle = None
        feed.batches = iter(batches)
        try:
            while True:
                (windows,) = pipeline.run()
                _, crops = feed.pending.popleft()
                yield [*map(torch.from_dlpack, windows)], crops
        except StopIteration:
            pipeline.reset()
            self._idle = pipeline, feed
        except RuntimeError as error:
            bad = self._undecodable(feed.pending)
            if not bad:
                raise
            raise DataError(
                f"{first_few(bad)} cannot be decoded: its pixel data is"
                " damaged, which only decoding shows, or it has changed since"
                " the folder was scanned; replace or remove it, or leave it"
                " out by Data.exclude, and training goes on by the same"
                " command, from the last completed epoch; bazel run"
                " //tools:data_doctor finds all such files and writes the list"
            ) from error

    def _build(self, max_batch_size: int) -> "tuple[Pipeline, _Feed]":
        feed, device_id = _Feed(), self._device_id()
        pipeline = Pipeline(
            batch_size=max_batch_size,
            num_threads=self._num_threads(),
            device_id=device_id,
            prefetch_queue_depth=_PREFETCH,
        )
        with pipeline:
            on_cpu = {"device": "cpu"}
            decoder = on_cpu if device_id is None else _MIXED_DECODER
            pipeline.set_outputs(_graph(feed, decoder))
        pipeline.build()
        return pipeline, feed

    def _num_threads(self) -> int:
        return self.data.num_threads or _cores_of_this_process()

    def _device_id(self) -> int | None:
        """DALI's number of the device; None for the CPU."""
        if self.device.type != "cuda":
            return None
        if self.device.index is None:
            return torch.cuda.current_device()
        return self.device.index

    def _undecodable(self, batches: Iterable[Batch]) -> list[str]:
        """The bad files of the first batch that has any, tried singly."""
        for paths, crops in batches:
            bad = []
            for i, path in enumerate(paths):
                pipeline, feed = self._build(1)
                feed.batches = iter([([path], crops[i : i + 1])])
                try:
                    pipeline.run()
                except RuntimeError:
                    bad.append(path)
            if bad:
                return bad
        return []


class _Feed:
    """Where a pipeline asks for its next batch.

    Attributes:
      batches: those to come.
      pending: those given to the pipeline whose output was not yet taken.
    """

    def __init__(self) -> None:
        self.batches: Iterator[Batch] = iter(())
        self.pending: collections.deque[Batch] = collections.deque()

    def __call__(self) -> list:
        """What _graph takes: file names, corners and sizes of the windows."""
        paths, crops = batch = next(self.batches)
        self.pending.append(batch)
        names = [np.frombuffer(os.fsencode(path), np.uint8) for path in paths]
        corners, sizes = np.split(crops.windows, 2, axis=1)
        return [names, *map(np.ascontiguousarray, (corners, sizes))]


def _graph(feed: _Feed, decoder: dict) -> DataNode:
    """The DALI operators from a file's name to the pixels of its window."""
    name, corner, size = fn.external_source(source=feed, num_outputs=3)
    return fn.decoders.image_slice(
        fn.io.file.read(name),
        corner,
        size,
        axis_names="HW",
        adjust_orientation=False,
        **decoder,
    )


def _cores_of_this_process() -> int:
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
