"""Test files, each in processes of its own.

A test that hangs is named and ended, and so is one after which the GPU is lost;
the tests after it run in another process. Nothing that was found and not run
counts as passed.
"""

import collections
import pathlib
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from tools.gpu_check import processes
from tools.gpu_check.carrying import missing_step
from tools.gpu_check.errors import CheckError
from tools.gpu_check.events import read, write
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, PASSED, Step

# The likeliest to fail come first: what others are made of, then what is made
# of it.
_CUDA_ORDER = (
    "kernels",
    "operators",
    "norm_relu",
    "patchwise",
    "pairwise",
    "folding",
    "cuda_graph",
    "fallback",
)
_MOST_PROCESSES = 6  # Of a file of which tests hang or lose the GPU.
_FAREWELL_SECONDS = 20.0  # From the end of the tests to that of the process.
_SHOWN = 12  # Tests of a file that are named in the table.


class Limits(NamedTuple):
    """Seconds that a file, and a test of it, may take."""

    file: float
    test: float


def files(root: pathlib.Path, names: str, device: str) -> list[str]:
    """Test files, in the order in which they run.

    Args:
      root: of the project.
      names: files or folders with commas between them; "" is tests/cuda, or
        tests/kernels on a CPU.
      device: "cuda" or "cpu".

    Returns:
      Paths from the root.

    Raises:
      CheckError: if there is no such file, or no test in such a folder.
    """
    default = "tests/cuda" if device == "cuda" else "tests/kernels"
    found: list[str] = []
    for name in (names or default).split(","):
        path = root / name
        new = [path] if path.is_file() else sorted(path.rglob("*_test.py"))
        if not name or not new or root / "tests" not in path.parents:
            known = sorted(p.name for p in (root / "tests").iterdir())
            raise CheckError(
                "--tests must name files or folders of tests/ "
                f"({', '.join(known)}), got {name!r}"
            )
        found += [str(p.relative_to(root)) for p in new]
    return sorted(dict.fromkeys(found), key=_place_in_order)


def _place_in_order(file: str) -> int:
    name = pathlib.Path(file).name.removesuffix("_test.py")
    if file.startswith("tests/cuda/") and name in _CUDA_ORDER:
        return _CUDA_ORDER.index(name)
    return len(_CUDA_ORDER)


def run_file(
    file: str,
    place: Place,
    limits: Limits,
    name: str = "",
    prefix: Sequence[str] = (),
    options: Sequence[str] = (),
    variables: dict[str, str] | None = None,
) -> Step:
    """Runs the tests of a file, in as many processes as it takes.

    Args:
      file: path from the root.
      place: where everything is.
      limits: seconds for all of it, and for one test.
      name: of the step, if not that of the file.
      prefix: words before the command, of what runs it.
      options: of pytest.
      variables: of the environment, beside place's.

    Returns:
      What came of it. The log and the record lie in the output folder.
    """
    start = time.monotonic()
    name = name or file
    log, record = place.fresh(name, "log"), place.fresh(name, "jsonl")
    command = [*prefix, *place.python, "-m", "pytest", file, *options]
    command += ["-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", "--config-file=/dev/null"]
    command += [f"--rootdir={place.root}", "-p", "tools.gpu_check.recorder"]
    command += [f"--record={record}"]
    environment = place.environment | (variables or {})
    for _ in range(_MOST_PROCESSES):
        left = limits.file - (time.monotonic() - start)
        before = len(read(record))
        watch = _Watch(record, limits.test)
        ended = processes.run(
            command, log, left, environment, place.root, watch
        )
        _blame(record, ended)
        tally = _Tally(read(record), ended)
        over = time.monotonic() - start >= limits.file
        if tally.complete or over or len(tally.events) == before:
            break
    return tally.step(name, time.monotonic() - start, place.without)


class _Watch:
    """Says when a process has been silent for too long."""

    def __init__(self, record: pathlib.Path, seconds: float) -> None:
        self._record, self._seconds = record, seconds
        self._size, self._since = -1, 0.0

    def __call__(self) -> str:
        size = self._record.stat().st_size if self._record.exists() else 0
        if size != self._size:
            self._size, self._since = size, time.monotonic()
        silent = time.monotonic() - self._since
        if silent > min(self._seconds, _FAREWELL_SECONDS):
            last = (read(self._record) or [{}])[-1]
            if "complete" in last and silent > _FAREWELL_SECONDS:
                return "did not end after its tests"
        return f"hung for {silent:.0f} s" if silent > self._seconds else ""


def _blame(record: pathlib.Path, ended: processes.Ended) -> None:
    """Ends the test in which a process ended, on its behalf."""
    events = read(record)
    if events and "started" in events[-1]:
        test = events[-1]["started"]
        write(record, ended=test, outcome="failed", text=ended.words)


class _Tally:
    """What the record of a file and the end of its last process say."""

    def __init__(self, events: list[dict], ended: processes.Ended) -> None:
        self.events, self._ended = events, ended
        self.complete = any("complete" in e for e in events)
        self._tests = {e["ended"]: e for e in events if "ended" in e}
        found = dict.fromkeys(t for e in events for t in e.get("found", ()))
        self._not_run = [t for t in found if t not in self._tests]
        self._unreadable = [e for e in events if "unreadable" in e]

    def step(self, name: str, seconds: float, without: Sequence[str]) -> Step:
        """The file as a step."""
        for event in self._unreadable:
            step = missing_step(name, event["text"], seconds, without)
            if step:
                return step
        number = collections.Counter(
            event["outcome"] for event in self._tests.values()
        )
        number["not run"] = len(self._not_run)
        words = ", ".join(
            f"{number[outcome]} {outcome}"
            for outcome in ("passed", "failed", "skipped", "not run")
            if number[outcome] or outcome == "passed"
        )
        strange = self._strange_end()
        good = number["passed"] > 0 and number.total() == number["passed"]
        verdict = PASSED if good and not strange else FAILED
        return Step(name, verdict, words, seconds, self._details(strange))

    def _strange_end(self) -> str:
        """What a process did that ended otherwise than its tests say."""
        if self._ended.why or self._ended.code not in (0, 1):
            return self._ended.words
        if self._ended.code == 1 and self.complete:
            outcomes = {e["outcome"] for e in self._tests.values()}
            return "" if "failed" in outcomes else self._ended.words
        return ""

    def _details(self, strange: str) -> Sequence[str]:
        lines = [f"  {strange}"] if strange else []
        lines += [
            f"  {e['unreadable']}: {_last_line(e['text'])}"
            for e in self._unreadable
        ]
        lines += [
            f"  {e['outcome']}: {test.split('::', 1)[-1]}: {_reason(e['text'])}"
            for test, e in self._tests.items()
            if e["outcome"] != "passed"
        ]
        lines += [
            f"  the GPU was lost: {e['lost'].split('::', 1)[-1]}: {e['text']}"
            for e in self.events
            if "lost" in e
        ]
        if self._not_run:
            first = self._not_run[0].split("::", 1)[-1]
            lines.append(f"  not run: {first} and those after it")
        more = len(lines) - _SHOWN
        return (*lines[:_SHOWN], *([f"  and {more} more"] if more > 0 else []))


def _reason(text: str) -> str:
    """The line of a failure that says most."""
    errors = re.findall(r"^E +(.*\S)", text, re.M)
    return (errors[0] if errors else _last_line(text))[:300]


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", 1)[-1][:300]
