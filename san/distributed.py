"""Several training processes, as torchrun starts them, or one.

Reads torchrun's environment, opens and closes the process group, and holds
the few collective operations that training needs. Batch normalisation over
all processes is in here too; DistributedDataParallel is torch's own.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Process:
    """This process among its peers.

    Attributes:
      rank: its number, from 0.
      world_size: the number of processes.
      device: where its model and images live.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = dataclasses.field(
        default_factory=lambda: torch.device("cpu")
    )

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.rank == 0


@contextlib.contextmanager
def process_group() -> Iterator[Process]:
    """Joins the processes that torchrun started; leaves them at the end.

    Without torchrun's environment this is a single process. CPU tensors are
    reduced by gloo, CUDA tensors by NCCL.

    Yields:
      This process.

    Raises:
      ValueError: if the environment is not one that torchrun makes.
    """
    rank, world_size, local_rank = _torchrun_environment()
    device = _device(local_rank)
    if world_size == 1:
        yield Process(device=device)
        return
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, rank=rank, world_size=world_size)
    try:
        yield Process(rank, world_size, device)
    finally:
        dist.destroy_process_group()


def _torchrun_environment() -> tuple[int, int, int]:
    """RANK, WORLD_SIZE and LOCAL_RANK, checked."""
    world_size = _environment_integer("WORLD_SIZE", 1, 1)
    if world_size == 1:
        return 0, 1, 0
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if name not in os.environ]:
        raise ValueError(
            "distributed: the environment must hold all that torchrun sets,"
            f" got WORLD_SIZE={world_size} without {', '.join(missing)}"
        )
    rank = _environment_integer("RANK", 0, 0)
    if rank >= world_size:
        raise ValueError(
            f"distributed: RANK must be below WORLD_SIZE ({world_size}),"
            f" got {rank}"
        )
    return rank, world_size, _environment_integer("LOCAL_RANK", 0, 0)


def _environment_integer(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"distributed: {name} must be an integer of at least {least},"
            f" got {text!r}"
        )
    return int(text)


def _device(local_rank: int) -> torch.device:
    """The CUDA device of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            "distributed: LOCAL_RANK must be below the number of CUDA devices"
            f" ({torch.cuda.device_count()}), got {local_rank}"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor, in place; returns it."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; never waits for a GPU."""
    if not dist.is_initialized():
        return flag
    return bool(sum_over_processes(torch.tensor(int(flag))))


def on_first_process(function: Callable[[], T]) -> T:
    """What the function returns on process 0, on every process.

    The others wait. A user's mistake found by process 0 (ValueError or
    OSError) is raised by all of them, so that none waits for ever.
    """
    if not dist.is_initialized():
        return function()
    message: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            message[0] = function()
        except (ValueError, OSError) as error:
            message[1] = error
    dist.broadcast_object_list(message, device=torch.device("cpu"))
    result, mistake = message
    if mistake is not None:
        raise mistake
    return result


def share_buffers(model: nn.Module) -> None:
    """Gives every process the buffers (running statistics) of process 0."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes that gradients pass through (summed as well)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return sum_over_processes(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].contiguous().clone())


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
