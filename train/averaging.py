"""The exponential moving average of a network's weights and statistics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that follows it: a step adds 1 - d of it.

    d is min(decay, (1 + n) / (10 + n)) after n steps, so that the first
    weights are soon forgotten; n and all that is averaged are in the copy's
    state dict. Buffers that are counts are copied.

    Args:
      model: the network that is trained.
      decay: d in the long run.
    """

    def follow(
        averages: Sequence[Tensor], values: Sequence[Tensor], _: Any
    ) -> None:
        if averages[0].is_floating_point():
            # Not the count that is given here: reading it waits for a GPU.
            count = int(average.n_averaged)
            now = min(decay, (1 + count) / (10 + count))
            torch._foreach_lerp_(list(averages), list(values), 1 - now)
        else:
            torch._foreach_copy_(list(averages), list(values))

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    return average
