"""Builds, tests and measures the kernels on a GPU machine, without Bazel.

  python3 tools/gpu_check [build] [test] [measure] [--sanitize] [--quick]

Without a step: all three. Needs the machine's nvcc, g++ and a Python with
torch, NumPy and pytest. Where gin-config, absl-py or tqdm is missing and there
is no network,

  python3 tools/gpu_check carry

fetches them on a machine that has one, into runs/gpu_check/packages, to be
copied along. Each call builds first, by the flags of cuda_kernels/flags.bzl,
unless what an earlier call built is still what would come out.

Every test file and every section of the benchmark is a process with a time
limit: one that hangs is ended and named, and one that loses the GPU loses it
for itself alone. Logs, results and the table of steps are written into --output
as they come. What was not run counts as failed, unless --without asked for it;
so does a skipped test. On a machine where a command may take ten minutes:

  python3 tools/gpu_check build test --seconds=280 --output=DIR
  python3 tools/gpu_check measure --quick --seconds=280 --output=DIR
  python3 tools/gpu_check build --sanitize --seconds=280 --output=DIR

--device=cpu goes through all of it without a GPU. Exit codes: 0 if every step
passed, 1 if one failed or was not done, 2 if a flag was wrong, 128 + the number
of a signal.
"""

import argparse
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from tools.gpu_check import (
    building,
    carrying,
    measuring,
    sanitizing,
    testing,
    toolchain,
)
from tools.gpu_check.command_line import options_of
from tools.gpu_check.errors import CheckError, StopError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, Step, Summary

_ROOT = pathlib.Path(__file__).absolute().parents[2]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SANITIZER_SLOWDOWN = 3
_BUILD_SECONDS = 1200.0


def main(arguments: Sequence[str]) -> int:
    """Runs the steps; returns the exit code."""
    try:
        options = options_of(arguments, str(__doc__), _ROOT)
        place = _place(options)
        steps = _steps(options, place)
    except CheckError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    for number in _SIGNALS:
        signal.signal(number, _stop)
    # A core file of a process with a GPU is as large as its memory.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    summary = Summary(place.output / _summary_name(options), list(steps))
    code = 0
    try:
        _run(steps, summary, options.seconds)
    except StopError as stop:
        print(f"gpu_check: {stop}", flush=True)
        code = 128 + stop.number
    print("\n" + summary.table(), flush=True)
    return code or (0 if summary.good else 1)


def _run(
    steps: dict[str, Callable[[float], Step]], summary: Summary, seconds: float
) -> None:
    """Takes each step, while there is time."""
    deadline = time.monotonic() + seconds
    for name, step in steps.items():
        left = deadline - time.monotonic()
        if left <= 0:
            print(f"gpu_check: {seconds:.0f} s are over", flush=True)
            return
        print(f"gpu_check: {name} ...", flush=True)
        try:
            summary.add(step(left))
        except CheckError as error:
            first, *rest = str(error).splitlines()
            summary.add(Step(name, FAILED, first, details=rest))
            if name in (toolchain.STEP, building.STEP):
                return


def _steps(
    options: argparse.Namespace, place: Place
) -> dict[str, Callable[[float], Step]]:
    """Each step by its name, in order; it is told the seconds left."""
    steps: dict[str, Callable[[float], Step]] = {}
    if "carry" in options.steps:
        steps[carrying.STEP] = lambda left: carrying.carry(place)
    asked = {"build", "test", "measure"} & set(options.steps)
    if not asked and not options.sanitize:
        return steps
    tools: list[toolchain.Toolchain] = []

    def look(left: float) -> Step:
        tested = "test" in asked or options.sanitize
        found, step = toolchain.find(place, options.device, tested)
        tools.append(found)
        return step

    steps[toolchain.STEP] = look
    steps[building.STEP] = lambda left: building.build(
        place, tools[0], min(left, _BUILD_SECONDS)
    )
    if "test" in asked:
        steps |= _tests(options, place)
    if options.sanitize:
        steps |= _sanitizing(options, place)
    if "measure" in asked:
        steps |= _measuring(options, place)
    return steps


def _tests(
    options: argparse.Namespace, place: Place
) -> dict[str, Callable[[float], Step]]:
    def step(file: str) -> Callable[[float], Step]:
        return lambda left: testing.run_file(
            file, place, _limits(options, left)
        )

    files = testing.files(place.root, options.tests, options.device)
    return {file: step(file) for file in files}


def _sanitizing(
    options: argparse.Namespace, place: Place
) -> dict[str, Callable[[float], Step]]:
    def step(tool: str, file: str) -> Callable[[float], Step]:
        return lambda left: sanitizing.run(
            tool, file, place, _limits(options, left, _SANITIZER_SLOWDOWN)
        )

    first = {
        sanitizing.SELF_TEST: lambda left: sanitizing.prove(
            place, _limits(options, left, _SANITIZER_SLOWDOWN).test
        )
    }
    return first | {
        sanitizing.step_name(*run): step(*run) for run in sanitizing.RUNS
    }


def _measuring(
    options: argparse.Namespace, place: Place
) -> dict[str, Callable[[float], Step]]:
    wishes = measuring.Wishes(options.device, options.only, options.quick)

    def step(section: str) -> Callable[[float], Step]:
        return lambda left: measuring.measure(
            section, place, wishes, min(left, options.section_seconds)
        )

    return {measuring.step_name(s): step(s) for s in options.sections}


def _limits(
    options: argparse.Namespace, left: float, slowdown: float = 1
) -> testing.Limits:
    return testing.Limits(
        min(left, slowdown * options.file_seconds),
        min(left, slowdown * options.test_seconds),
    )


def _stop(number: int, _: object) -> NoReturn:
    # One is enough: what ends now takes seconds, and must not be cut off.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise StopError(number)


def _summary_name(options: argparse.Namespace) -> str:
    """A call for other steps leaves this one's table alone."""
    steps = [*options.steps, *(["sanitize"] if options.sanitize else [])]
    return f"summary_{'_'.join(steps)}.txt"


def _place(options: argparse.Namespace) -> Place:
    build = options.build_dir.resolve()
    packages = [path.resolve() for path in options.packages]
    for path in packages:
        if not path.is_dir():
            raise CheckError(f"--packages must be a folder, got {path}")
    place = Place(
        _ROOT,
        build,
        (options.output or build / "results").resolve(),
        [*packages, build / carrying.FOLDER],
        options.without,
    )
    place.prepare()
    return place
