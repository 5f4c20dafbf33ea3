"""RandAugment by NVIDIA DALI's operators, of draws that are given.

DALI's own rand_augment draws by itself, and would draw something else after a
resume. Source: "RandAugment: Practical automated data augmentation with a
reduced search space", 2019.
"""

import warnings
from collections.abc import Callable

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.auto_aug import rand_augment
from nvidia.dali.auto_aug.core import select, signed_bin
from nvidia.dali.pipeline import DataNode, Pipeline

from san.data.alterations import Alterations
from san.data.settings import Data

# The largest translation, as part of a side: 100 of 224 pixels, as published.
_MAX_TRANSLATION = 100 / 224
_MAGNITUDES = 31  # From 0 to the strongest, 30.


class RandAugment:
    """Alters squares one operation after the other."""

    def __init__(
        self,
        data: Data,
        max_batch_size: int,
        num_threads: int,
        device_id: int | None,
    ) -> None:
        """Builds the operators.

        Args:
          data: image_size, rand_augment_ops and rand_augment_magnitude.
          max_batch_size: largest number of squares in a batch.
          num_threads: of the CPU.
          device_id: of the CUDA device where the squares lie; None if they do
            not.
        """
        self._batch: list = []
        # DALI's suite uses names that DALI has since moved, and says so
        # whatever the filters are.
        with warnings.catch_warnings(record=True):
            self._pipeline = self._graph(data, device_id)(
                batch_size=max_batch_size,
                num_threads=num_threads,
                device_id=device_id,
                prefetch_queue_depth=1,
                exec_async=False,
                exec_pipelined=False,
            )
            self._pipeline.build()

    def _graph(
        self, data: Data, device_id: int | None
    ) -> Callable[..., Pipeline]:
        suite = rand_augment.get_rand_augment_suite(
            max_translate_abs=round(_MAX_TRANSLATION * data.image_size)
        )

        @pipeline_def(enable_conditionals=True)
        def graph() -> DataNode:
            (squares,) = fn.external_source(
                source=lambda: self._batch[:1],
                num_outputs=1,
                layout="HWC",
                device="cpu" if device_id is None else "gpu",
            )
            operations, negated = fn.external_source(
                source=lambda: self._batch[1:], num_outputs=2
            )
            for number in range(data.rand_augment_ops):
                squares = select(
                    suite,
                    operations[number],
                    data=squares,
                    magnitude_bin=signed_bin(
                        data.rand_augment_magnitude, negated[number]
                    ),
                    num_magnitude_bins=_MAGNITUDES,
                )
            return squares

        return graph

    def __call__(
        self, squares: torch.Tensor, alterations: Alterations
    ) -> torch.Tensor:
        """Alters a batch.

        Args:
          squares: uint8 [n, side, side, 3].
          alterations: operations and signs for each.

        Returns:
          The same shape.
        """
        images = squares if squares.is_cuda else squares.numpy()
        self._batch = [
            [*images],
            [*alterations.operations],
            [*alterations.negated],
        ]
        (altered,) = self._pipeline.run()
        return torch.stack([*map(torch.from_dlpack, altered)])
