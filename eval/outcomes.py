"""What a network said of each image, and how far it can be believed."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from san.jobs import processes

# Equal parts of [0, 1] that confidences are gathered in, as in the source.
NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """One row for each image of an index, in its order.

    Attributes:
      labels: int64 [n], the true classes.
      predicted: int64 [n], the classes that came first.
      confidences: float64 [n], their probabilities.
      probabilities: float64 [n], those of the true classes.
      ranks: int64 [n], places of the true classes, from 0.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    probabilities: np.ndarray
    ranks: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether the true class came first: bool [n]."""
        return self.ranks == 0


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence beside accuracy, by bins of confidence.

    Attributes:
      counts: int64 [NUM_BINS], images in each bin.
      accuracies: float64 [NUM_BINS], parts that are right; 0 in empty bins.
      confidences: float64 [NUM_BINS], means; 0 in empty bins.
    """

    counts: np.ndarray
    accuracies: np.ndarray
    confidences: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1].

        The mean over images of how far accuracy and confidence of their bin
        are apart. Source: "On Calibration of Modern Neural Networks", ICML
        2017, equation 3.
        """
        gaps = np.abs(self.accuracies - self.confidences)
        return float((self.counts * gaps).sum() / self.counts.sum())


def calibration(outcomes: Outcomes) -> Calibration:
    """How a network's confidence goes with its accuracy."""
    # The first bin holds 0 too; the others are open below.
    bins = np.ceil(outcomes.confidences * NUM_BINS).astype(int) - 1
    bins = bins.clip(0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bins, weights=values, minlength=NUM_BINS)
        return sums / np.maximum(counts, 1)

    return Calibration(
        counts, mean(outcomes.correct), mean(outcomes.confidences)
    )


class Recorder:
    """Gathers what validation.validate sees, from all processes."""

    def __init__(
        self,
        labels: np.ndarray,
        numbers: Iterable[np.ndarray],
        device: torch.device,
    ) -> None:
        """Prepares as many rows as there are images.

        Args:
          labels: int64 [n], of all images.
          numbers: of this process's images, batch by batch.
          device: where the logits lie.
        """
        self._labels = labels
        self._numbers = iter(numbers)
        # Columns: predicted, confidence, probability and rank of the label.
        self._rows = torch.zeros(
            len(labels), 4, dtype=torch.float64, device=device
        )

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the logits [n, K] of the next batch, and its labels [n]."""
        probabilities = logits.double().softmax(1)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        confidences = probabilities.gather(1, best[:, :1])
        own = probabilities.gather(1, labels[:, None])
        before = logits > logits.gather(1, labels[:, None])
        # Among the first as validation counts, where topk chooses of equals.
        hits = best == labels[:, None]
        ranks = torch.where(
            hits.any(1),
            hits.int().argmax(1),
            before.sum(1).clamp(min=best.shape[1]),
        )
        numbers = torch.from_numpy(next(self._numbers)).to(logits.device)
        self._rows[numbers] = torch.cat(
            [best[:, :1].double(), confidences, own, ranks[:, None].double()],
            dim=1,
        )

    def outcomes(self) -> Outcomes:
        """Those of all images; every process has to ask."""
        rows = processes.sum_over_processes(self._rows).cpu().numpy()
        predicted, confidences, probabilities, ranks = rows.T
        return Outcomes(
            self._labels,
            predicted.astype(np.int64),
            confidences,
            probabilities,
            ranks.astype(np.int64),
        )
