"""Batch normalisation by statistics that were not computed from its input.

The fused attentions never make the tensors that their mapping normalises;
they know the mean and variance of each channel by other means. Here these
become the scale and shift that the normalisation amounts to, and move its
running statistics as the module itself would have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Moments(NamedTuple):
    """Statistics of a batch, channel by channel.

    Attributes:
      size: values per channel; 0 of statistics that are not of a batch.
      mean: [C].
      variance: [C], biased.
    """

    size: int | torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


def scale_and_shift(
    norm: Any, moments: Callable[[], Moments], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The [C] and [C] with norm(x) = scale * x + shift, channel by channel.

    Args:
      norm: a batch normalisation; see current_moments.
      moments: called if they are needed.
      dtype: of the result.

    Raises:
      ValueError: if training with a single value per channel.
    """
    _, mean, variance = current_moments(norm, moments)
    if not uses_batch(norm):
        mean, variance = mean.to(dtype), variance.to(dtype)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.to(scale.dtype)
    shift = -mean * scale
    if norm.affine:
        shift = shift + norm.bias.to(shift.dtype)
    return scale.to(dtype), shift.to(dtype)


def uses_batch(norm: Any) -> bool:
    """Whether a norm normalises by the statistics of the batch now."""
    return norm.training or norm.running_mean is None


def current_moments(norm: Any, moments: Callable[[], Moments]) -> Moments:
    """The statistics that a norm uses now; in training it tracks them too.

    Args:
      norm: a batch normalisation. In training it uses the moments, otherwise
        its running statistics. If it has a method `merge_statistics`, that
        merges the moments of all processes.
      moments: called if they are needed.

    Raises:
      ValueError: if training with a single value per channel.
    """
    if not uses_batch(norm):
        return Moments(0, norm.running_mean, norm.running_var)
    batch = moments()
    if hasattr(norm, "merge_statistics"):
        batch = Moments(*norm.merge_statistics(*batch))
    if isinstance(batch.size, int) and batch.size < 2:
        raise ValueError(
            f"{type(norm).__name__}: input must have more than 1 value "
            f"per channel when training, got {batch.size}"
        )
    if norm.training and norm.track_running_stats:
        _track(norm, batch)
    return batch


@torch.no_grad()
def _track(norm: Any, batch: Moments) -> None:
    """Moves the running statistics as torch.nn.BatchNorm2d does."""
    norm.num_batches_tracked.add_(1)
    factor = norm.momentum
    if factor is None:
        factor = 1.0 / float(norm.num_batches_tracked)
    unbiased = batch.variance * (batch.size / max(batch.size - 1, 1))
    norm.running_mean.lerp_(batch.mean.to(norm.running_mean.dtype), factor)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), factor)
