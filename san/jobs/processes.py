"""Several training processes, as torchrun starts them, or one.

Reads torchrun's environment, opens and closes the process group, and holds
the few collective operations that jobs need. Batch normalisation over all
processes is in san/norms.py; DistributedDataParallel is torch's own.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

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
