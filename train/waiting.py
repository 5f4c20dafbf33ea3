"""How long training waits for data."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class DataWait:
    """Adds up the time between the end of a step and the next one's images.

    On a GPU by its own clock: there a step is only queued when the call
    returns, and while it computes nobody waits. It is not asked to finish.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._waits: list[tuple[Any, Any]] = []

    def during(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; how long each takes to come is measured."""
        start = self._now()
        for batch in batches:
            self._waits.append((start, self._now()))
            yield batch
            start = self._now()

    def read(self) -> float:
        """Seconds since the last reading, whose steps must be computed."""
        seconds = sum(self._between(*wait) for wait in self._waits)
        self._waits.clear()
        return seconds

    def _now(self) -> Any:
        """A time of the device."""
        if self._device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        """Seconds between two times."""
        if self._device.type != "cuda":
            return end - start
        return start.elapsed_time(end) / 1000
