"""Training loss and accuracy, gathered without waiting for the device."""

import dataclasses

import torch
from torch import Tensor

from san.jobs import processes


@dataclasses.dataclass(frozen=True)
class Figures:
    """Sums over training images, as the network saw them.

    Attributes:
      loss_sum: of the losses.
      num_correct: images whose class came first.
      num_images: number of images.
    """

    loss_sum: float = 0.0
    num_correct: float = 0
    num_images: float = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            self.loss_sum + other.loss_sum,
            self.num_correct + other.num_correct,
            self.num_images + other.num_images,
        )

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / self.num_images

    @property
    def top1(self) -> float:
        """Images whose class came first, in percent."""
        return 100.0 * self.num_correct / self.num_images


NO_FIGURES = Figures()


class Meter:
    """Keeps figures of each step on the device until they are read."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(
        self,
        loss: Tensor,
        logits: Tensor,
        labels: Tensor,
        continues: bool = False,
    ) -> None:
        """Adds a step of this process, or more of the latest one.

        Args:
          loss: mean over its images.
          logits: [N, K].
          labels: [N].
          continues: whether these images belong to the step before.
        """
        num_images = torch.full_like(loss, len(labels))
        correct = (logits.detach().argmax(1) == labels).sum()
        row = torch.stack([loss.detach() * num_images, correct, num_images])
        if continues:
            self._rows[-1] += row
        else:
            self._rows.append(row.double())

    def read(self) -> list[Figures]:
        """The figures of each step since the last reading, of all processes."""
        if not self._rows:
            return []
        rows = processes.sum_over_processes(torch.stack(self._rows))
        self._rows.clear()
        return [Figures(*row) for row in rows.tolist()]
