"""The one validation loop, used after every training epoch and by eval.

Measures; it prints nothing and reads no files.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.jobs import processes
from san.jobs.precision import autocast


@dataclasses.dataclass(frozen=True)
class Result:
    """What a validation found, over the images of all processes.

    Attributes:
      loss: mean cross-entropy, without label smoothing.
      images: number of images per class, [num_classes].
      correct1: images whose class came first, per class.
      correct5: images whose class was among the first min(5, num_classes).
      seconds: duration on this process.
    """

    loss: float
    images: list[int]
    correct1: list[int]
    correct5: list[int]
    seconds: float

    @property
    def num_images(self) -> int:
        """Number of images."""
        return sum(self.images)

    @property
    def top1(self) -> float:
        """Images whose class came first, in percent."""
        return 100.0 * sum(self.correct1) / self.num_images

    @property
    def top5(self) -> float:
        """Images whose class was among the first five, in percent."""
        return 100.0 * sum(self.correct5) / self.num_images

    @property
    def images_per_second(self) -> float:
        """Images of all processes per second."""
        return self.num_images / max(self.seconds, 1e-9)


def check_finite(result: Result, path: pathlib.Path) -> None:
    """Refuses the figures of logits that are no numbers.

    topk takes NaN for the largest number: there would be an accuracy.

    Args:
      result: what was found.
      path: of the checkpoint.

    Raises:
      FloatingPointError: if the loss is not finite.
    """
    if not math.isfinite(result.loss):
        raise FloatingPointError(
            "eval: the network's logits must be finite, got a loss of"
            f" {result.loss} over {result.num_images} images with {path};"
            " Recipe.precision = 'float32' has the largest range"
        )


def validate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: torch.device,
    precision: str = "float32",
    record: Callable[[Tensor, Tensor], None] | None = None,
) -> Result:
    """Runs the network over the validation images, in eval mode.

    The mode it was in is restored. Counts and losses are summed over the
    processes, never averaged, so ranks may hold different numbers of images.

    Args:
      model: gives [N, num_classes] logits; not wrapped for training.
      batches: this process's (images [N, 3, H, W], labels [N]).
      num_classes: number of classes.
      device: where the model lives.
      precision: of Recipe.
      record: is given the logits, float32, and the labels of each batch.

    Raises:
      ValueError: if there is no image at all.
    """
    start = time.perf_counter()
    # Rows: images, first, among the first five, all by class; then the loss.
    sums = torch.zeros(4, num_classes, dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in batches:
            labels = labels.to(device)
            logits = model(images.to(device))
            _count(sums, logits, labels)
            if record:
                record(logits.float(), labels)
    model.train(was_training)
    sums = processes.sum_over_processes(sums).cpu()
    if not sums[0].any():
        raise ValueError("validate: batches must hold images, got none")
    images, correct1, correct5 = sums[:3].long().tolist()
    loss = float(sums[3].sum() / sums[0].sum())
    seconds = time.perf_counter() - start
    return Result(loss, images, correct1, correct5, seconds)


def _count(sums: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Adds one batch to the sums."""
    logits = logits.float()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == labels[:, None]).double()
    losses = F.cross_entropy(logits, labels, reduction="none").double()
    rows = [torch.ones_like(losses), hits[:, 0], hits.sum(1), losses]
    for sums_row, row in zip(sums, rows, strict=True):
        sums_row.index_add_(0, labels, row)
