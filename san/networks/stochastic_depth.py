"""Stochastic depth: bottlenecks left out of some images in training."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """A bottleneck whose branch may be left out of an image in training.

    What is kept is divided by the probability of keeping it. Source: "Deep
    Networks with Stochastic Depth", ECCV 2016, section 3.

    Attributes:
      drop_rate: probability of leaving an image out, at least 0 and below 1.
      drop_draws: None, or a uniform number in [0, 1) for each image of the
        next batch, [N]; below `drop_rate` leaves it out. None takes torch's
        random numbers.
    """

    drop_rate: float = 0.0
    drop_draws: Tensor | None = None

    def _drops(self) -> bool:
        """Whether anything is left out."""
        return self.training and self.drop_rate > 0

    def _kept(self, branch: Tensor) -> Tensor:
        """What is left of a branch [N, C, H, W]."""
        draws = self.drop_draws
        if draws is None:
            draws = torch.rand(len(branch), device=branch.device)
        kept = (draws >= self.drop_rate).to(branch.dtype)
        return branch * (kept / (1 - self.drop_rate))[:, None, None, None]


def set_stochastic_depth(model: nn.Module, rate: float) -> None:
    """Gives the bottlenecks of a SAN or a ResNet their rates.

    They rise linearly from 0 at the first to the given one at the last.

    Args:
      model: a network with bottlenecks of this package.
      rate: of the last, at least 0 and below 1.

    Raises:
      ValueError: if the rate is no such number, or, unless it is 0, the
        network has fewer than two bottlenecks.
    """
    if not 0 <= rate < 1:
        raise ValueError(
            "set_stochastic_depth: rate must be at least 0 and below 1, got"
            f" {rate}"
        )
    blocks = residual_blocks(model)
    if rate and len(blocks) < 2:
        raise ValueError(
            "set_stochastic_depth: model must have two bottlenecks of SAN or"
            f" ResNet or more, got a {type(model).__name__} with {len(blocks)}"
        )
    last = max(1, len(blocks) - 1)
    for number, block in enumerate(blocks):
        block.drop_rate = rate * number / last


def residual_blocks(model: nn.Module) -> list[ResidualBlock]:
    """The bottlenecks of a network, first to last."""
    return [m for m in model.modules() if isinstance(m, ResidualBlock)]
