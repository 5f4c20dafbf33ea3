"""Several training processes, or one.

Opens and closes the process group, and holds the few collective operations
that jobs need. Batch normalisation over all
processes is in san/norms.py; DistributedDataParallel is torch's own.
"""

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from san.jobs import peers, ranks

T = TypeVar("T")

# For processes to come together; nodes of a cluster may start late.
_MEETING = datetime.timedelta(minutes=10)

# While there is a group.
_watch: peers.Watch | None = None


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
def process_group(
    remedy: str = "start the same command again",
) -> Iterator[Process]:
    """Joins the processes that were started together; leaves them at the end.

    Who they are is san/jobs/ranks.py's affair; without others this is a single
    process. CPU tensors are reduced by gloo, CUDA tensors by NCCL. If one of
    the processes ends before its time, all do: see san/jobs/peers.py.

    Args:
      remedy: what to do about a process that was killed.

    Yields:
      This process.

    Raises:
      ValueError: if the environment does not say how to join the others.
      OSError: if they cannot be reached.
    """
    found = ranks.find()
    device = _device(found.local_rank)
    if found.world_size == 1:
        yield Process(device=device)
        return
    store = _rendezvous(found, device)
    host = os.environ["MASTER_ADDR"]
    global _watch
    try:
        with peers.watched(
            store, found.rank, found.world_size, host, remedy
        ) as _watch:
            yield Process(found.rank, found.world_size, device)
    finally:
        dist.destroy_process_group()


def _rendezvous(found: ranks.Ranks, device: torch.device) -> dist.Store:
    """Meets the others and forms the default group; what all of them share."""
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=_MEETING))
        dist.init_process_group(
            backend,
            store=store,
            rank=found.rank,
            world_size=found.world_size,
        )
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConnectionError(
            f"distributed: all {found.world_size} processes must start within"
            f" {_MEETING} and reach process 0 at {place}, got"
            f" {str(error).partition(chr(10))[0]}"
        ) from error
    return dist.PrefixStore("san", store)


def _device(local_rank: int) -> torch.device:
    """The CUDA device of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if "SLURM_LOCALID" in os.environ and torch.cuda.device_count() == 1:
        local_rank = 0  # The one that the site gives to each task.
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


def largest(number: int) -> int:
    """The largest of every process's number; never waits for a GPU."""
    if not dist.is_initialized():
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def on_first_process(function: Callable[[], T]) -> T:
    """What the function returns on process 0, on every process.

    The others wait as long as it takes, and heed signals meanwhile. A user's
    mistake found by process 0 (ValueError or OSError) is raised by all of
    them, so that none waits for ever.
    """
    if not dist.is_initialized():
        return function()
    message: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            message[0] = function()
        except (ValueError, OSError) as error:
            message[1] = error
    assert _watch is not None
    _watch.wait_for_first()
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
