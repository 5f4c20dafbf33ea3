"""What the benchmark does beside a GPU, as far as it can be seen without."""

import pytest
import torch

from tools.benchmark import ceilings, clocks, measurement, precision, report
from tools.benchmark.clocks import CudaClock
from tools.benchmark.measurement import Case, Contender, Settings

GPU = Settings(torch.device("cuda"), rounds=2, attempts=1, turn_seconds=0.0)


class Timeline:
    """Stands in for a GPU: when it is done with what the host has queued."""

    def __init__(self, monkeypatch):
        self.now = self.done = 0.0
        monkeypatch.setattr(torch.cuda, "Event", lambda **_: Event(self))
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)
        monkeypatch.setattr(
            torch.cuda, "_sleep", lambda n: self.launch(n / 2e9)
        )

    def launch(self, seconds, host=0.0):
        """Queues work, which takes the host a while too."""
        self.now += host
        self.done = max(self.done, self.now) + seconds

    def wait(self):
        self.now = max(self.now, self.done)

    def clock(self):
        clock = CudaClock(torch.device("cpu"))
        assert clock._cycles_per_second == pytest.approx(2e9)
        return clock


class Event:
    def __init__(self, timeline):
        self._timeline = timeline

    def record(self):
        self._at = max(self._timeline.now, self._timeline.done)

    def query(self):
        return self._timeline.now >= self._at

    def elapsed_time(self, other):
        return (other._at - self._at) * 1e3


@pytest.fixture
def timeline(monkeypatch):
    monkeypatch.setattr(clocks, "_FLUSH_BYTES", 8)
    return Timeline(monkeypatch)


@pytest.mark.parametrize("launches", [1, 3, 60])
def test_the_clock_hides_the_host(timeline, launches):
    def run():
        for _ in range(launches):
            timeline.launch(2e-6, host=5e-5)

    clock = timeline.clock()
    assert clock.seconds(run, 5) == pytest.approx(2e-6 * launches)
    assert not clock.with_host


def test_the_clock_says_when_it_cannot_hide_the_host(timeline):
    def synchronizes():
        timeline.launch(2e-6, host=5e-5)
        timeline.wait()
        timeline.launch(2e-6, host=5e-5)

    def takes_long():
        timeline.launch(2e-6)
        timeline.launch(2e-6, host=0.5)

    clock = timeline.clock()
    assert clock.seconds(synchronizes, 1) > 5e-5
    assert clock.with_host
    assert clock.seconds(takes_long, 1) > 0.4
    assert clock.with_host
    clock.seconds(lambda: timeline.launch(1e-3), 1)
    assert not clock.with_host


def test_work_that_the_clock_does_not_see_is_an_error(timeline):
    with pytest.raises(RuntimeError, match="nothing ran on the current"):
        timeline.clock().seconds(lambda: None, 3)


def test_the_latency_of_a_call_has_the_host_in_it(timeline):
    clock = clocks.LatencyClock()
    assert clock.with_host
    assert clock.seconds(lambda: timeline.launch(1.0), 2) > 0
    assert timeline.now == timeline.done == 2.0


class Settled:
    """A clock that runs the work, and takes note of the precision."""

    with_host = False

    def __init__(self):
        self.seen = []

    def seconds(self, run, calls):
        run()
        self.seen.append(torch.backends.cudnn.allow_tf32)
        return 1.0


def test_results_are_checked_in_float32_and_timed_as_the_table_says(
    monkeypatch,
):
    clock, checked = Settled(), []
    monkeypatch.setattr(measurement, "clock_of", lambda device: clock)
    monkeypatch.setattr(measurement, "ceilings", lambda device, traffic: [])
    monkeypatch.setattr(measurement._Rounds, "noise", 0.0)

    def check():
        checked.append(torch.backends.cudnn.allow_tf32)
        return torch.ones(1)

    eager = Contender("eager", lambda: None, check=check)
    case = Case(
        work="work",
        ours=Contender("ours", lambda: None, check=check),
        peers=[eager, *eager.in_tf32(GPU.device)],
        reference=lambda: torch.ones(1),
    )
    before = torch.backends.cudnn.allow_tf32
    assert before  # As torch has it.
    rows = case.measure(GPU)
    assert torch.backends.cudnn.allow_tf32 == before
    assert checked == [False, False, False]
    # Planning, the last one after a call to get ready; then two rounds.
    assert clock.seen == [False, False, True, True] + 2 * [False, False, True]
    assert [(row.peer, row.timed) for row in rows] == [
        ("eager", "float32"),
        ("eager, TF32", "TF32 convolutions; ours float32"),
    ]
    assert "timed in" in report.table(rows)
    clock.with_host = True
    assert case.measure(GPU)[0].timed == "float32, with host"


def test_precision_is_that_of_products_too():
    torch.set_float32_matmul_precision("high")
    try:
        with precision.computing_in(precision.TF32):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_on_a_cpu_nothing_is_said_of_tf32():
    contender = Contender("eager", lambda: None)
    assert contender.in_tf32(torch.device("cpu")) == []


def test_a_ceiling_is_measured_with_random_numbers(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "mm", lambda a, b, out: seen.append(a))
    product = ceilings._product(torch.device("cpu"), 64, torch.float32)
    product.run()
    assert seen[0].unique().numel() > 2000
