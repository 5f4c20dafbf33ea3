"""Batch normalisation over the images of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes that gradients pass through (summed as well)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation with statistics over the images of all processes.

    torch's own refuses CPU tensors. Entries of the state dict are those of
    nn.BatchNorm2d. Each process adds its count, mean and squared deviations
    to one all-reduce; they are merged by Chan's formula, so processes may
    hold different numbers of images and nothing cancels.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(
                "SyncBatchNorm: input must have at least 2 dimensions,"
                f" got {input.dim()}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [N, C, ...] over all but C, on all processes."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype.itemsize < 4 else input
        dims = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, dims, correction=0)
        count, mean, variance = self.merge_statistics(
            x.numel() // x.shape[1], mean, variance
        )
        self._track(count, mean.detach(), variance.detach())
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (x * scale.view(shape) + shift.view(shape)).to(input.dtype)

    def merge_statistics(
        self, count: int, mean: Tensor, variance: Tensor
    ) -> tuple[Any, Tensor, Tensor]:
        """Count, mean and variance over all processes, differentiable."""
        if not dist.is_initialized():
            return count, mean, variance
        return _merge_over_processes(count, mean, variance)

    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics (unbiased variance, as torch's)."""
        batches = self.num_batches_tracked
        if batches is None:
            return
        batches.add_(1)
        factor = self.momentum
        if factor is None:
            factor = 1.0 / float(batches)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        for running, new in (
            (self.running_mean, mean),
            (self.running_var, unbiased),
        ):
            assert running is not None
            running.lerp_(new.to(running.dtype), factor)


def _merge_over_processes(
    count: int, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean [C] and variance [C] of all processes' elements together."""
    channels = mean.shape[0]
    mine = torch.cat([mean, variance * count, mean.new_tensor([count])])
    table = mine.new_zeros(dist.get_world_size(), 2 * channels + 1)
    table[dist.get_rank()] = mine
    table = _SumOverProcesses.apply(table)
    means, deviations = table[:, :channels], table[:, channels:-1]
    counts = table[:, -1:].detach()
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    deviations = deviations + counts * (means - mean) ** 2
    return total, mean, deviations.sum(0) / total


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Replaces every batch normalisation of a model by SyncBatchNorm.

    Parameters and buffers are kept, the very same tensors.

    Returns:
      The model, or its replacement where it is a batch normalisation itself.
    """
    for name, child in model.named_children():
        setattr(model, name, synchronize_batch_norm(child))
    if not isinstance(model, _BatchNorm) or isinstance(model, SyncBatchNorm):
        return model
    replacement = SyncBatchNorm(
        model.num_features,
        model.eps,
        model.momentum,
        model.affine,
        model.track_running_stats,
    )
    replacement._parameters = model._parameters
    replacement._buffers = model._buffers
    return replacement.train(model.training)
