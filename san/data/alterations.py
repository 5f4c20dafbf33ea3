"""What is done to a training square beside cropping and mirroring it.

Drawn by plan.py; RandAugment's operations are carried out by rand_augment.py,
erasing here.
"""

import dataclasses

import numpy as np
import torch

# Of RandAugment: DALI's list, with the identity.
NUM_OPERATIONS = 14


@dataclasses.dataclass(frozen=True)
class Alterations:
    """What is done to each of n squares.

    Attributes:
      operations: int32 [n, rand_augment_ops], places in RandAugment's list.
      negated: int32 [n, rand_augment_ops], 1 for the other direction.
      erased: int64 [n, 4], top, left, height, width of what is erased.
    """

    operations: np.ndarray
    negated: np.ndarray
    erased: np.ndarray

    def __getitem__(self, images: slice) -> "Alterations":
        """Those of some of the squares."""
        return Alterations(
            self.operations[images], self.negated[images], self.erased[images]
        )


def erase(batch: torch.Tensor, alterations: Alterations) -> None:
    """Sets what is erased to 0, the mean, in place.

    Args:
      batch: [n, 3, side, side], normalised.
      alterations: of the squares.
    """
    for square, erased in zip(batch, alterations.erased.tolist(), strict=True):
        top, left, height, width = erased
        square[:, top : top + height, left : left + width] = 0
