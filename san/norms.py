"""Batch normalisation: whose statistics it uses, keeps and shares.

A norm is a scale and a shift per channel. The fused operators never make the
tensors that are normalised, and know their means and variances by other
means; from these, the scale and the shift are found here, and the running
statistics are moved as the module itself would have. SyncBatchNorm does
nothing else. When a norm uses what, and over which processes, is as in
torch.nn.BatchNorm2d and torch.nn.SyncBatchNorm.

Below san.ops; imports nothing of san. Shape letters: N batch, C channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Moments(NamedTuple):
    """Statistics of a batch, channel by channel.

    Attributes:
      size: values per channel, a tensor where they are of several processes;
        0 of statistics that are not of a batch, and of an empty one.
      mean: [C].
      variance: [C], biased.
    """

    size: int | Tensor
    mean: Tensor
    variance: Tensor

    def unbiased(self) -> Tensor:
        """The unbiased variance [C]."""
        size = self.size
        size = size.clamp(min=2) if isinstance(size, Tensor) else max(size, 2)
        return self.variance * (size / (size - 1))


def scale_and_shift(
    norm: Any, moments: Callable[[], Moments], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The [C] and [C] with norm(x) = scale * x + shift, channel by channel.

    Args:
      norm: a batch normalisation; see current_moments.
      moments: called if they are needed.
      dtype: of the result.

    Raises:
      ValueError: as current_moments.
    """
    _, mean, variance = current_moments(norm, moments)
    if not uses_batch(norm):
        mean, variance = mean.to(dtype), variance.to(dtype)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.to(scale.dtype)
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.to(shift.dtype)
    return scale.to(dtype), shift.to(dtype)


def uses_batch(norm: Any) -> bool:
    """Whether a norm normalises by the statistics of the batch now."""
    no_others = norm.running_mean is None and norm.running_var is None
    return norm.training or no_others


def current_moments(norm: Any, moments: Callable[[], Moments]) -> Moments:
    """The statistics that a norm uses now; in training it tracks them too.

    An empty batch has mean 0 and variance 1, without gradients, and is not
    tracked.

    Args:
      norm: a batch normalisation. In training it uses the moments, merged
        over the processes of group_of(norm); otherwise its running statistics,
        if it has any.
      moments: of this process's batch; called if they are needed. Of an
        empty batch the size alone is read.

    Raises:
      ValueError: if the batch has a single value per channel and is not
        merged with others; or if one of two running statistics is missing.
    """
    if (norm.running_mean is None) != (norm.running_var is None):
        raise ValueError(
            f"{type(norm).__name__}: running_mean and running_var must both"
            " be None or both be tensors, got one of each"
        )
    if not uses_batch(norm):
        return Moments(0, norm.running_mean, norm.running_var)
    batch, group = moments(), group_of(norm)
    if group is not None:
        batch = _merge(batch, group)
    elif batch.size == 1:
        raise ValueError(
            f"{type(norm).__name__}: input must have more than 1 value per"
            " channel when training, got 1"
        )
    elif batch.size == 0:
        mean = torch.zeros_like(batch.mean.detach())
        batch = Moments(0, mean, torch.ones_like(mean))
    if norm.training and norm.track_running_stats:
        _track(norm, batch)
    return batch


@torch.no_grad()
def _track(norm: Any, batch: Moments) -> None:
    """Moves the running statistics, by the momentum or as their mean."""
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    size, mean, _ = batch
    if norm.running_mean is None or (isinstance(size, int) and size == 0):
        return
    for running, new in (
        (norm.running_mean, mean),
        (norm.running_var, batch.unbiased()),
    ):
        new = new.to(running.dtype)
        if isinstance(size, Tensor):  # Perhaps no process has an image.
            new = torch.where(size > 0, new, running)
        running.lerp_(new, factor)


def group_of(norm: Any) -> dist.ProcessGroup | None:
    """The processes whose images together give a norm its statistics now.

    Returns:
      The group; None if it is this process alone: of a norm that is neither
      SyncBatchNorm nor torch.nn.SyncBatchNorm, in eval mode, without
      processes, with a single one, or outside the norm's own group.
    """
    synchronises = (
        isinstance(norm, SyncBatchNorm) or type(norm) is nn.SyncBatchNorm
    )
    if not (synchronises and norm.training and dist.is_available()):
        return None
    if not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def sum_over_group(tensor: Tensor, name: str) -> None:
    """Sums a tensor over the processes of a group, in place.

    Args:
      tensor: one on each process, of the same shape.
      name: the group's, as its attribute group_name has it.
    """
    # Not everywhere is torch built with processes.
    from torch.distributed.distributed_c10d import _resolve_process_group

    group = _resolve_process_group(name)  # type: ignore[arg-type]
    dist.all_reduce(tensor, group=group)


class _SumOverGroup(torch.autograd.Function):
    """A sum over processes that gradients pass through (summed as well)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor, group=group)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SumOverGroup.apply(gradients[0], ctx.group), None


def _merge(batch: Moments, group: dist.ProcessGroup) -> Moments:
    """The moments of all processes' values together; differentiable.

    Each process adds its count, mean and squared deviations to one
    all-reduce; they are merged by Chan's formula, so processes may hold
    different numbers of images, or none, and nothing cancels.
    """
    size, mean, variance = batch
    dtype, channels = mean.dtype, mean.shape[0]
    if size == 0:  # No values, no gradients; but a part in both all-reduces.
        mean, variance = (
            torch.zeros_like(t, requires_grad=t.requires_grad)
            for t in (mean, variance)
        )
    mine = torch.cat([mean, variance * size, mean.new_tensor([size])]).double()
    table = mine.new_zeros(dist.get_world_size(group), len(mine))
    table[dist.get_rank(group)] = mine
    table = _SumOverGroup.apply(table, group)
    means, deviations = table[:, :channels], table[:, channels:-1]
    counts = table[:, -1:].detach()
    total = counts.sum()
    divisor = total.clamp(min=1)
    mean = (counts * means).sum(0) / divisor
    deviations = deviations + counts * (means - mean) ** 2
    variance = deviations.sum(0) / divisor
    return Moments(total, mean.to(dtype), variance.to(dtype))


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation with statistics over the images of all processes.

    torch's own refuses CPU tensors. Entries of the state dict are those of
    nn.BatchNorm2d.

    Args:
      *args: as of nn.BatchNorm2d.
      process_group: the processes; None for all.
      **kwargs: as of nn.BatchNorm2d.
    """

    def __init__(
        self,
        *args: Any,
        process_group: dist.ProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(
                "SyncBatchNorm: input must have at least 2 dimensions,"
                f" got {input.dim()}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [N, C, ...] over all but C, on all processes."""
        if group_of(self) is None:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype.itemsize < 4 else input
        scale, shift = scale_and_shift(self, lambda: _moments(x), x.dtype)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (x * scale.view(shape) + shift.view(shape)).to(input.dtype)


def _moments(x: Tensor) -> Moments:
    """The moments of [N, C, ...]."""
    size = x.numel() // x.shape[1]
    dims = [0, *range(2, x.dim())]
    if size == 0:  # var_mean would warn.
        return Moments(0, x.sum(dims), x.sum(dims))
    variance, mean = torch.var_mean(x, dims, correction=0)
    return Moments(size, mean, variance)


_TORCHS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm


def synchronize_batch_norm(
    model: nn.Module, process_group: dist.ProcessGroup | None = None
) -> nn.Module:
    """Replaces every batch normalisation of a model by SyncBatchNorm.

    Parameters, buffers and hooks are kept, the very same; of
    torch.nn.SyncBatchNorm the process group, too.

    Args:
      model: any model.
      process_group: of the others; None for all processes.

    Returns:
      The model, or its replacement where it is a batch normalisation itself.

    Raises:
      ValueError: if a batch normalisation is not exactly one of torch's, so
        that what it computes is not known.
    """
    # All are looked at before any is replaced; one that stands in several
    # places is replaced by one.
    replacements: dict[nn.Module, nn.Module] = {
        module: _synchronized(module, process_group)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and not isinstance(module, SyncBatchNorm)
    }
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in replacements:
                module._modules[name] = replacements[child]
    return replacements.get(model, model)


def _synchronized(
    norm: nn.Module, process_group: dist.ProcessGroup | None
) -> nn.Module:
    own = "forward" in vars(norm)
    if type(norm) not in _TORCHS or own:
        own = own or type(norm).forward not in [k.forward for k in _TORCHS]
        raise ValueError(
            "synchronize_batch_norm: every batch norm must be one of torch's,"
            f" got {type(norm).__name__}"
            + (" with a forward of its own" if own else "")
            + "; set Recipe.sync_batch_norm = False, or replace it"
        )
    if isinstance(norm, nn.SyncBatchNorm):
        process_group = norm.process_group
    replacement = SyncBatchNorm(norm.num_features)
    vars(replacement).update(vars(norm) | {"process_group": process_group})
    return replacement
