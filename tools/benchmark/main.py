"""Measures san against its peers and against the hardware.

  bazel run //tools:benchmark -- SUBCOMMAND

SUBCOMMAND is ops, core, models, relations, input, startup, growth or twin.
Every result is checked before it is timed. Each ratio is of two turns in the
same round of the same process; the table has their median and range, the
targets, and our share of the roofline. Exit codes: 0 if all was measured, 1 if
a result or a flag was wrong, 3 if the machine was too noisy to report anything.
"""

import dataclasses
import importlib
import os
import re
import sys
import time
from collections.abc import Sequence

import torch
from absl import app, flags

from tools.benchmark import report
from tools.benchmark.measurement import Settings, measure_all
from tools.benchmark.rows import LARGEST_DRIFT, Row, judge

# Subcommands, and the modules that list their works.
SECTIONS = {
    "ops": "operators",
    "core": "core",
    "models": "networks",
    "relations": "relations",
    "input": "loading",
    "startup": "startup",
    "growth": "growth",
    "twin": "twin",
}

_QUICK_RETRY_SECONDS = 20.0

_DEVICE = flags.DEFINE_enum(
    "device", "cpu", ["cpu", "cuda"], "Where to measure."
)
_THREADS = flags.DEFINE_integer(
    "threads", 1, "Threads of the CPU.", lower_bound=1
)
_QUICK = flags.DEFINE_boolean(
    "quick", False, "Fewer rounds and peers: under two minutes."
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", None, "Turns of each contender: 9, or 3 if quick.", lower_bound=1
)
_ONLY = flags.DEFINE_string(
    "only", "", "Measure the works whose names match this expression."
)
_ALLOW_NOISE = flags.DEFINE_boolean(
    "allow_noise", False, "Report noisy figures too, marked."
)
_LARGEST_DRIFT = flags.DEFINE_float(
    "largest_drift",
    LARGEST_DRIFT,
    "What a hardware ceiling may lose between rounds, as a part of it.",
)
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Images of an operator or a core: 8, or 64 on a GPU.",
    lower_bound=1,
)
_JSON = flags.DEFINE_string(
    "json",
    None,
    "Write everything to this file; with --allow_noise after each work, so that"
    " it is there whatever becomes of the next.",
)
_TABLE = flags.DEFINE_string("table", None, "Write the table likewise.")
_PLOT = flags.DEFINE_string("plot", None, "Draw an .svg or .png file.")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    section = _section(argv[1:])
    settings = _settings()
    works = importlib.import_module(f"tools.benchmark.{SECTIONS[section]}")
    try:
        entries = works.entries(settings)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    entries = [e for e in entries if re.search(_ONLY.value, e.work)]
    if not entries:
        raise app.UsageError(f"--only: no work matches {_ONLY.value!r}")
    measured: list[Row] = []
    for number, rows in enumerate(measure_all(entries, settings), start=1):
        measured += rows
        if _ALLOW_NOISE.value:
            _write(measured, f"{number} of {len(entries)}", settings)
    refusal = report.problems(measured, settings.largest_drift)
    if refusal and not _ALLOW_NOISE.value:
        print(refusal, file=sys.stderr)
        return 3
    print(_write(measured, f"{len(entries)} of {len(entries)}", settings))
    _plot(section, judge(measured, settings.device.type))
    return 1 if any(row.wrong for row in measured) else 0


def _write(measured: Sequence[Row], works: str, settings: Settings) -> str:
    """Writes what is asked for; returns the table with its header."""
    rows = judge(measured, settings.device.type)
    facts = report.facts(settings.device, settings.threads)
    facts = facts | {"batch": settings.batch, "works": works}
    text = (
        f"{report.header(facts)}\n{report.table(rows, settings.largest_drift)}"
    )
    if _JSON.value:
        report.write_json(_user_path(_JSON.value), facts, rows)
    if _TABLE.value:
        report.write(_user_path(_TABLE.value), text + "\n")
    return text


def _plot(section: str, rows: Sequence[Row]) -> None:
    if _PLOT.value:
        from tools.benchmark import plot  # Slow to import.

        plot.draw(_user_path(_PLOT.value), section, rows)


def _section(arguments: Sequence[str]) -> str:
    if len(arguments) != 1 or arguments[0] not in SECTIONS:
        raise app.UsageError(
            f"benchmark: subcommand must be one of {', '.join(SECTIONS)}, "
            f"got {' '.join(arguments) or 'none'}"
        )
    return arguments[0]


def _settings() -> Settings:
    if _DEVICE.value == "cuda" and not torch.cuda.is_available():
        raise app.UsageError(
            "benchmark: --device=cuda must find a GPU and a CUDA build of "
            f"torch, got torch {torch.__version__} without a device"
        )
    settings = Settings(
        device=torch.device(_DEVICE.value),
        threads=_THREADS.value,
        largest_drift=_LARGEST_DRIFT.value,
        batch=_BATCH.value or (64 if _DEVICE.value == "cuda" else 8),
    )
    if _QUICK.value:
        settings = dataclasses.replace(
            settings,
            quick=True,
            rounds=3,
            last_attempt=time.monotonic() + _QUICK_RETRY_SECONDS,
            slow_seconds=1.0,
        )
    if _ROUNDS.value:
        settings = dataclasses.replace(settings, rounds=_ROUNDS.value)
    return settings


def _user_path(path: str) -> str:
    """A path as the user means it, also under `bazel run`."""
    return os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", ""), path)


if __name__ == "__main__":
    app.run(main)
