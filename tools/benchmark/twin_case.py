"""Several networks of ours beside all others, in the same rounds.

Everything takes turns in one case; each of ours then has its rows against the
others, and one against each other network's best way.
"""

import dataclasses
import functools
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tools.benchmark import backends, targets
from tools.benchmark.clocks import CoreClock, WallClock
from tools.benchmark.measurement import Case, Contender, Settings
from tools.benchmark.rows import Row

# Of cores, beyond those that a way was given.
_MORE_CORES = 0.25
_SPIN_SECONDS, _SPINNING = 0.1, 0.2
# Before a turn: threads of the one before it may spin for milliseconds.
_REST_SECONDS = 0.01
_FAST = 1.2  # Products in bfloat16, beside those in float32.

# Behind the name of a network of ours that others run.
EXPORTED = " exported"


@dataclasses.dataclass(frozen=True)
class Setup:
    """In which conditions networks are compared.

    Attributes:
      mode: "inference" or "training step".
      batch: images of a call.
      dtype: that it computes in, where it may.
      threads: of the CPU.
    """

    mode: str
    batch: int
    dtype: torch.dtype
    threads: int

    @property
    def autocast(self) -> torch.dtype | None:
        """What to autocast to; None for float32."""
        return None if self.dtype == torch.float32 else self.dtype

    def work(self, network: str = "") -> str:
        """The name of the work, or of that of one network."""
        dtype = str(self.dtype).removeprefix("torch.")
        name = targets.twin_work(
            network, self.mode, self.batch, dtype, self.threads
        )
        return name.strip()

    def contender(
        self,
        network: str,
        way: str,
        run: Callable[[], Any],
        check: Callable[[], Any] | None = None,
    ) -> Contender:
        """One way of running one network.

        Args:
          network: its name, with EXPORTED where it is ours, run by others.
          way: what is done with it.
          run: does it once.
          check: gives its result, where `run` does not.

        Returns:
          A contender; its check gives the network's own name and the result,
          and raises RuntimeError if it used more threads than it was given.
        """

        def checked() -> tuple[str, Any]:
            result = (check or run)()
            check_threads(f"{network}, {way}", run, self.threads)
            return network.removesuffix(EXPORTED), result

        return Contender(f"{network}, {way}", run, self._prepare, checked)

    def _prepare(self) -> None:
        backends.chooser(backends.OURS)()
        if self.threads > 1:
            time.sleep(_REST_SECONDS)


@dataclasses.dataclass(frozen=True)
class Beside:
    """Networks of ours, each beside all the others.

    Attributes:
      setup: the conditions.
      beside: of each network of ours those that it is compared with.
      ours: a contender of each network of ours.
      others: all other contenders.
      reference: gives the right result of a network by its name.
      error: of a result, given the right one.
      tolerance: largest error that is taken for rounding.
      skipped: reason by name of those that do not take part.
    """

    setup: Setup
    beside: Mapping[str, Sequence[str]]
    ours: Sequence[Contender]
    others: Sequence[Contender]
    reference: Callable[[str], Any]
    error: Callable[[Any, Any], float]
    tolerance: float
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def measure(self, settings: Settings) -> list[Row]:
        """Of each of ours: rows against every way, and the best ways."""
        first, *more = self.ours
        names = {network_of(c.name) for c in (*self.ours, *self.others)}
        names = {name.removesuffix(EXPORTED) for name in names}
        rows = Case(
            work=self.setup.work(),
            ours=first,
            peers=[*more, *self.others],
            reference=lambda: {name: self.reference(name) for name in names},
            error=self._error,
            tolerance=self.tolerance,
            threads=self.setup.threads,
            clock=CoreClock() if self.setup.threads == 1 else WallClock(),
            skipped=self.skipped,
        ).measure(settings)
        if any(row.wrong for row in rows):
            return rows
        by_peer = {row.peer: row for row in rows if row.ratios}
        result = []
        for ours in self.ours:
            result += self._rows_of(network_of(ours.name), by_peer)
        return result + [row for row in rows if not row.ratios]

    def _error(self, result: Any, references: Any) -> float:
        name, value = result
        return self.error(value, references[name])

    def _rows_of(self, ours: str, by_peer: Mapping[str, Row]) -> list[Row]:
        own = [row for name, row in by_peer.items() if network_of(name) == ours]
        rows = [
            dataclasses.replace(
                _beside(row, own[0]) if own else row,
                work=self.setup.work(ours),
            )
            for name, row in by_peer.items()
            if network_of(name) in self.beside[ours]
        ]
        return rows + self._best(rows)

    def _best(self, rows: Sequence[Row]) -> list[Row]:
        """A row against the best way of each network that has several."""
        ways: dict[str, list[Row]] = {}
        for row in rows:
            ways.setdefault(network_of(row.peer), []).append(row)
        slow = self.setup.dtype == torch.bfloat16 and not bfloat16_is_fast()
        return [
            dataclasses.replace(
                min(found, key=lambda row: row.theirs or 0.0),
                peer=targets.best_of(name) + targets.SLOW_BFLOAT16 * slow,
            )
            for name, found in ways.items()
            if len(found) > 1
        ]


def network_of(contender: str) -> str:
    """What a contender's name begins with: its network."""
    return contender.partition(", ")[0]


def check_threads(name: str, run: Callable[[], Any], threads: int) -> None:
    """Holds a way to the threads that it was given, by the processor's time.

    Args:
      name: of the way.
      run: does it once, and not for the first time.
      threads: that it was given.

    Raises:
      RuntimeError: it used more, or goes on after it has ended.
    """
    started, before = time.perf_counter(), _processor_seconds()
    run()
    used = _processor_seconds()
    cores = (used - before) / (time.perf_counter() - started)
    time.sleep(_SPIN_SECONDS)
    spinning = (_processor_seconds() - used) / _SPIN_SECONDS
    if cores > threads + _MORE_CORES:
        raise RuntimeError(
            f"benchmark: {name} must use {threads} threads, got {cores:.1f}"
            " cores"
        )
    if spinning > _SPINNING:
        raise RuntimeError(
            f"benchmark: {name} must leave the processor when it ends, got"
            f" {spinning:.1f} cores after it"
        )


@functools.cache
def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies faster in bfloat16 than in float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        clock = CoreClock()
        seconds[dtype] = min(
            clock.seconds(lambda a=a: a @ a, 5) for _ in range(4)
        )
    return seconds[torch.float32] > _FAST * seconds[torch.bfloat16]


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _beside(row: Row, ours: Row) -> Row:
    """A row that had the first of ours in it, with another one of ours.

    The ratios of a round stand at the same place in both; a slow way has one,
    of the first round.
    """
    ratios = [a / b for a, b in zip(row.ratios, ours.ratios, strict=False)]
    return dataclasses.replace(row, ratios=ratios, ours=ours.theirs)
