"""How anything is measured here.

Everything of a case is built and its results are checked; each contender is
warmed; then come rounds in fixed order, in each of which the hardware's
ceilings and every contender have their turn. What counts is the ratio of two
contenders in the same round. Where a ceiling drifts between rounds, the case
is measured again, and at last reported as noisy.
"""

import contextlib
import dataclasses
import math
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import tqdm

from tools.benchmark import allocator, errors, precision, targets
from tools.benchmark.ceilings import attainable_seconds, ceilings
from tools.benchmark.clocks import Clock, CoreClock, clock_of
from tools.benchmark.rows import LARGEST_DRIFT, Row

# Of a yardstick's error: kinks that flip are few and rare, so that equals
# differ by factors; 0.5 to 3 were seen with ten draws of images.
_MARGIN = 5.0
_MEANINGLESS = 0.1  # An error of which no yardstick shows that it is rounding.


def nothing() -> None:
    """Prepares nothing."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How thoroughly to measure, and where.

    Attributes:
      device: where the work is done.
      threads: of the CPU, where a case does not say.
      quick: leave out what takes long.
      rounds: turns of each contender.
      attempts: measurements of a case before it is called noisy.
      last_attempt: time.monotonic() after which none is repeated.
      slow_seconds: a peer whose call takes longer has one turn in all; None
        gives each a turn in every round.
      turn_seconds: length of a turn, in as many calls as fit.
      largest_drift: of a ceiling between rounds, as a part of it.
      batch: images of an operator or an attention core.
    """

    device: torch.device
    threads: int = 1
    quick: bool = False
    rounds: int = 9
    attempts: int = 3
    last_attempt: float = math.inf
    slow_seconds: float | None = None
    turn_seconds: float = 0.02
    largest_drift: float = LARGEST_DRIFT
    batch: int = 8


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way of doing the work of a case.

    Attributes:
      name: of the way.
      run: does it once. Its tensors are the result that is checked.
      prepare: comes before each turn, outside of the time.
      check: gives the result, where `run` does not.
      precision: that it is timed in; every result is checked in float32.
    """

    name: str
    run: Callable[[], Any]
    prepare: Callable[[], Any] = nothing
    check: Callable[[], Any] | None = None
    precision: str = precision.FLOAT32

    def in_tf32(self, device: torch.device) -> "list[Contender]":
        """On a GPU: this, as torch computes it if nobody says otherwise."""
        if device.type != "cuda":
            return []
        name, tf32 = f"{self.name}, TF32", precision.TF32
        return [dataclasses.replace(self, name=name, precision=tf32)]

    def seconds(self, clock: Clock, calls: int) -> float:
        """Of one of so many calls."""
        self.prepare()
        with precision.computing_in(self.precision):
            return clock.seconds(self.run, calls)


@dataclasses.dataclass(frozen=True)
class Case:
    """One work, in our way and others.

    Attributes:
      work: its name; see targets.py.
      ours: our way.
      peers: the other ways.
      reference: gives the result that all have to agree with; None where
        there is none.
      tolerance: largest error that is taken for rounding.
      yardstick: name of a peer that does the reference's own arithmetic in
        the contenders' precision. Where its error is larger than the
        tolerance, rounding is: others may be _MARGIN times as far off.
      error: of a result, given the reference.
      traffic: bytes that have to be moved; 0 if no roofline is known.
      operations: floating point operations that have to be done.
      threads: where the target asks for a number of its own.
      clock: where it is not that of the device.
      with_default_malloc: names of peers to compete with once more, both
        under the C library's default allocator.
      skipped: reason by name of peers that do not take part.
    """

    work: str
    ours: Contender
    peers: Sequence[Contender]
    reference: Callable[[], Any] | None
    tolerance: float = 1e-4
    yardstick: str | None = None
    error: Callable[[Any, Any], float] = errors.largest_error
    traffic: int = 0
    operations: int = 0
    threads: int | None = None
    clock: Clock | None = None
    with_default_malloc: Sequence[str] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def measure(self, settings: Settings) -> list[Row]:
        """Rows against each peer, against the best and against the roof."""
        with precision.computing_in(precision.FLOAT32):
            return self._measure(settings)

    def _measure(self, settings: Settings) -> list[Row]:
        torch.set_num_threads(self.threads or settings.threads)
        on_cpu = settings.device.type == "cpu"
        if on_cpu:
            allocator.configure(allocator.TUNED)
        wrong = _wrong_rows(self)
        if wrong:
            return wrong
        rows = _compete(self, self.peers, settings)
        for name, reason in self.skipped.items():
            rows.append(Row(self.work, name, [], note=f"skipped: {reason}"))
        again = [p for p in self.peers if p.name in self.with_default_malloc]
        if again and on_cpu:
            allocator.configure(allocator.DEFAULT)
            more = _compete(self, again, settings)[: len(again)]
            for row in more:
                row.peer += targets.DEFAULT_MALLOC
            rows += more
            allocator.configure(allocator.TUNED)
        return rows


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something that is counted, or timed in processes of its own.

    Attributes:
      work: its name; see targets.py.
      peer: what it is compared with.
      unit: of ours and theirs.
      count: gives ours and theirs, once for each round.
      rounds: 1 for what is the same every time; None as set.
      gain: theirs / ours if true, else ours / theirs.
    """

    work: str
    peer: str
    unit: str
    count: Callable[[], tuple[float, float]]
    rounds: int | None = 1
    gain: bool = True

    def measure(self, settings: Settings) -> list[Row]:
        """The row of this quantity."""
        pairs = [self.count() for _ in range(self.rounds or settings.rounds)]
        ratios = [b / a if self.gain else a / b for a, b in pairs]
        ours, theirs = map(statistics.median, zip(*pairs, strict=True))
        return [Row(self.work, self.peer, ratios, ours, theirs, self.unit)]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A case or quantity to be, built when its turn comes.

    Attributes:
      work: its name.
      build: makes it.
    """

    work: str
    build: Callable[[], Any]


def measure_all(
    entries: Sequence[Entry], settings: Settings
) -> Iterator[list[Row]]:
    """Measures one entry after the other.

    Args:
      entries: what to measure.
      settings: how.

    Yields:
      The rows of each; one that says why, of an entry that failed.
    """
    progress = tqdm.tqdm(entries, unit="work")
    for entry in progress:
        progress.set_postfix_str(entry.work)
        try:
            rows = entry.build().measure(settings)
        except Exception as error:
            traceback.print_exc()
            if settings.device.type == "cuda":
                torch.cuda.synchronize()  # Fails too, if the GPU is lost.
            why = f"FAILED: {type(error).__name__}: {error}".split("\n")[0]
            rows = [Row(entry.work, "", [], note=why, wrong=True)]
        yield rows


def drift(rates: Sequence[float]) -> float:
    """How far the slowest round lies below the fastest, as a part of it."""
    return 1 - min(rates) / max(rates)


def _wrong_rows(case: Case) -> list[Row]:
    """A row for each contender that computes something else."""
    if case.reference is None:
        return []
    with _all_cores():
        reference = case.reference()
    errors_by_name = {}
    for contender in (case.ours, *case.peers):
        check = contender.check or contender.run
        if check is case.reference:
            continue
        contender.prepare()
        errors_by_name[contender.name] = case.error(check(), reference)
    limit = case.tolerance
    if case.yardstick:
        rounding = _MARGIN * errors_by_name[case.yardstick]
        limit = min(max(limit, rounding), _MEANINGLESS)
    return [
        Row(
            case.work,
            name,
            [],
            note=f"WRONG: error {error:.1e} > {limit:.0e}",
            wrong=True,
        )
        for name, error in errors_by_name.items()
        if not error <= limit
    ]


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """For what is not timed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(threads)


def _compete(
    case: Case, peers: Sequence[Contender], settings: Settings
) -> list[Row]:
    """Measures until the machine is quiet enough, or the attempts are over."""
    clock = case.clock or clock_of(settings.device)
    contenders = [case.ours, *peers]
    plans = [_plan(contender, clock, settings) for contender in contenders]
    best: _Rounds | None = None
    for _ in range(settings.attempts):
        rounds = _Rounds(case, contenders, plans, clock, settings)
        if best is None or rounds.noise < best.noise:
            best = rounds
        quiet = best.noise <= settings.largest_drift
        if quiet or time.monotonic() > settings.last_attempt:
            break
    assert best is not None
    return best.rows()


class _Plan(NamedTuple):
    """How often a contender runs.

    Attributes:
      calls: in each turn.
      turns: 1, or one for each round.
    """

    calls: int
    turns: int


def _plan(contender: Contender, clock: Clock, settings: Settings) -> _Plan:
    if contender.precision != precision.FLOAT32:
        contender.seconds(clock, 1)  # In its own the check has warmed it.
    seconds = max(contender.seconds(clock, 1), 1e-7)
    calls = max(1, min(1000, math.ceil(settings.turn_seconds / seconds)))
    slow = settings.slow_seconds is not None and seconds > settings.slow_seconds
    return _Plan(calls, 1 if slow else settings.rounds)


class _Rounds:
    """The turns of the ceilings and of every contender of a case."""

    def __init__(
        self,
        case: Case,
        contenders: Sequence[Contender],
        plans: Sequence[_Plan],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._case = case
        self._device = settings.device.type
        self._contenders = contenders
        # [round][contender]; nan where it had no turn.
        self._seconds: list[list[float]] = []
        self._rates: list[dict[str, tuple[float, str]]] = []
        self._with_host: set[str] = set()  # Names of contenders.
        limits = ceilings(settings.device, case.traffic)
        # What the machine can do, as the work is timed: on a busy machine the
        # processor's time is the steadier of the two.
        of_cores = isinstance(clock, CoreClock)
        seconds = (clock if of_cores else clock_of(settings.device)).seconds
        for number in range(settings.rounds):
            self._rates.append(
                {
                    limit.name: (limit.rate(seconds), limit.unit)
                    for limit in limits
                }
            )
            turns = []
            for contender, plan in zip(contenders, plans, strict=True):
                turn = math.nan
                # Our own turns are never left out.
                if number < plan.turns or not turns:
                    turn = contender.seconds(clock, plan.calls)
                    if clock.with_host:
                        self._with_host.add(contender.name)
                turns.append(turn)
            self._seconds.append(turns)

    @property
    def noise(self) -> float:
        """The largest drift of a ceiling between these rounds."""
        names = self._rates[0]
        return max(drift([r[name][0] for r in self._rates]) for name in names)

    def rows(self) -> list[Row]:
        """Against each peer, then the best of several, then the roof."""
        rows = []
        for place, peer in enumerate(self._contenders[1:], start=1):
            ratios = [turns[place] / turns[0] for turns in self._seconds]
            row = self._row(peer.name, ratios, self._median_of(place))
            row.timed = self._timed(peer)
            rows.append(row)
        # Without some of the peers nobody knows which is the best of all.
        if self._has_target(targets.BEST_PEER) and not self._case.skipped:
            ratios = [
                min(filter(math.isfinite, turns[1:]), default=math.nan)
                / turns[0]
                for turns in self._seconds
            ]
            rows.append(self._row(targets.BEST_PEER, ratios))
        if self._has_target(targets.HARDWARE):
            rows.append(self._row(targets.HARDWARE, self._shares()))
        return rows

    def _has_target(self, peer: str) -> bool:
        return targets.names(self._device, self._case.work, peer)

    def _median_of(self, place: int) -> float:
        turns = [turns[place] for turns in self._seconds]
        return statistics.median(filter(math.isfinite, turns)) * 1e3

    def _row(
        self, peer: str, ratios: Sequence[float], theirs: float | None = None
    ) -> Row:
        share = None
        if self._case.traffic:
            share = statistics.median(self._shares())
        return Row(
            work=self._case.work,
            peer=peer,
            ratios=[ratio for ratio in ratios if math.isfinite(ratio)],
            ours=self._median_of(0),
            theirs=theirs,
            share=share,
            noise=self.noise,
            timed=self._timed(self._contenders[0]),
        )

    def _timed(self, peer: Contender) -> str:
        """How ours and a peer were timed; of a CPU there is nothing to say."""
        if self._device != "cuda":
            return ""
        ours, theirs = (
            c.precision + ", with host" * (c.name in self._with_host)
            for c in (self._contenders[0], peer)
        )
        return ours if ours == theirs else f"{theirs}; ours {ours}"

    def _shares(self) -> list[float]:
        """Least possible seconds over ours, in each round."""
        case = self._case
        return [
            attainable_seconds(rates, case.traffic, case.operations) / turns[0]
            for rates, turns in zip(self._rates, self._seconds, strict=True)
        ]
