"""How much memory training takes."""

import collections
import dataclasses
import resource
import weakref
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

_MIB = 2**20


def peak_mib(device: torch.device) -> tuple[str, float]:
    """The most memory that this process has had.

    Args:
      device: where it trains.

    Returns:
      The name of what is measured, the tensors on a GPU or else all of the
      process, and MiB.
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        return "peak_cuda_mib", peak / _MIB
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return "peak_process_mib", peak / _MIB


def size_mib(tensors: Iterable[Tensor]) -> float:
    """What tensors take, in MiB; those that share memory take it once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(sizes.values()) / _MIB


class SavedForBackward:
    """Finds, while entered, what autograd keeps for the backward pass.

    Attributes:
      peak_mib: the most that was kept at a time, beside the model's own.
    """

    def __init__(self, model: nn.Module):
        self._own = {
            tensor.untyped_storage().data_ptr()
            for tensor in (*model.parameters(), *model.buffers())
        }
        self._kept: collections.Counter[int] = collections.Counter()
        self._mib = self.peak_mib = 0.0

    def __enter__(self) -> Self:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            self._keep, lambda kept: kept.tensor
        )
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__(*exception)

    def _keep(self, tensor: Tensor) -> "_Kept":
        kept = _Kept(tensor)
        storage = tensor.untyped_storage()
        place, mib = storage.data_ptr(), storage.nbytes() / _MIB
        if place not in self._own:
            self._count(place, mib)
            weakref.finalize(kept, self._release, place, mib)
        return kept

    def _count(self, place: int, mib: float) -> None:
        self._kept[place] += 1
        if self._kept[place] == 1:
            self._mib += mib
            self.peak_mib = max(self.peak_mib, self._mib)

    def _release(self, place: int, mib: float) -> None:
        self._kept[place] -= 1
        if not self._kept[place]:
            self._mib -= mib


@dataclasses.dataclass(eq=False)
class _Kept:
    """Stands for a tensor in autograd's graph, and goes with it."""

    tensor: Tensor
