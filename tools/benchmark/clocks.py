"""Clocks: the seconds that one call takes, on CPU and CUDA."""

import functools
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

_FLUSH_BYTES = 256 * 2**20  # More than the L2 cache of any GPU.
_MOST_CALLS = 100  # Of which the median is taken.
# A call of an operator is queued within the first; a network's thousands of
# launches may not be within the last.
_FIRST_SPIN_SECONDS, _LAST_SPIN_SECONDS = 5e-4, 6.4e-2


class Clock(Protocol):
    """Measures a call.

    Attributes:
      with_host: whether what it said last is the time of a GPU and of the host
        that keeps it waiting.
    """

    with_host: bool

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean seconds of one of `calls` calls, one after the other."""


class WallClock:
    """The time that passes; the calls end before it is read."""

    with_host = False

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean seconds of one call."""
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls


class CoreClock:
    """The time on cores of all threads, and of child processes that ended."""

    with_host = False

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
    """The time of the GPU alone, with a cold L2 cache before each call.

    Before the work and its first event the GPU spins, until the host has
    queued all of the work: what the host takes for that is not measured. Where
    it takes too long, waits for the GPU, or fills the queue of launches, that
    cannot be, and `with_host` says so.
    """

    def __init__(self, device: torch.device) -> None:
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
        self._cycles_per_second = _cycles_per_second()
        self.with_host = False

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Median seconds on the current stream of one of the calls.

        Raises:
          RuntimeError: if the events saw nothing, as of another stream.
        """
        spin = _FIRST_SPIN_SECONDS
        while True:
            queued = [
                self._queue(run, spin) for _ in range(min(calls, _MOST_CALLS))
            ]
            torch.cuda.synchronize()
            self.with_host = not all(call.hidden for call in queued)
            if not self.with_host or spin >= _LAST_SPIN_SECONDS:
                break
            spin = min(_LAST_SPIN_SECONDS, 8 * spin)
        times = sorted(call.start.elapsed_time(call.end) for call in queued)
        median = times[len(times) // 2] / 1e3
        if not median > 0:
            raise RuntimeError("clock: nothing ran on the current stream")
        return median

    def _queue(self, run: Callable[[], Any], spin: float) -> "_Call":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(int(spin * self._cycles_per_second))
        start.record()
        run()
        end.record()
        # The GPU has not begun: all of it will follow without a gap.
        return _Call(start, end, hidden=not start.query())


class _Call(NamedTuple):
    """A call that was queued: its events, and whether it was so in time."""

    start: torch.cuda.Event
    end: torch.cuda.Event
    hidden: bool


def _cycles_per_second() -> float:
    """How long the GPU spins; the second time, when it is awake."""
    cycles = 20_000_000
    for _ in range(2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(cycles)
        end.record()
        torch.cuda.synchronize()
    return cycles / (start.elapsed_time(end) / 1e3)


class LatencyClock:
    """From a call to the end of its work on the GPU, the host's time with it.

    What a person waits for a single image.
    """

    with_host = True

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Mean seconds of one call."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls


@functools.cache
def clock_of(device: torch.device) -> Clock:
    """The clock for work on a device."""
    return CudaClock(device) if device.type == "cuda" else WallClock()
