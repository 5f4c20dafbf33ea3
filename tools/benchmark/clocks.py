"""Clocks: the seconds that one call takes, on CPU and CUDA."""

import resource
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

_FLUSH_BYTES = 256 * 2**20  # More than the L2 cache of any GPU.


class Clock(Protocol):
    """Measures a call."""

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean seconds of one of `calls` calls, one after the other."""


class WallClock:
    """The time that passes; the calls end before it is read."""

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean seconds of one call."""
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls


class CoreClock:
    """The time on cores of all threads, and of child processes that ended."""

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean core seconds of one call."""
        start = _core_seconds()
        for _ in range(calls):
            run()
        return (_core_seconds() - start) / calls


def _core_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(
            resource.getrusage,
            (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN),
        )
    )


class CudaClock:
    """CUDA events around each call, with a cold L2 cache before it."""

    def __init__(self, device: torch.device) -> None:
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Median seconds on the current stream of one of the calls."""
        events = []
        for _ in range(calls):
            start, end = (
                torch.cuda.Event(enable_timing=True) for _ in range(2)
            )
            # Also keeps the GPU busy while the host launches the call, so
            # that the time is the kernels' and not the launches'.
            self._flush.zero_()
            start.record()
            run()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        times = sorted(start.elapsed_time(end) for start, end in events)
        return times[len(times) // 2] / 1e3


def clock_of(device: torch.device) -> Clock:
    """The clock for work on a device."""
    return CudaClock(device) if device.type == "cuda" else WallClock()
