"""How much memory training takes."""

import resource

import torch

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
