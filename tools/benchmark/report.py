"""Reports: the table, the JSON file, and the refusal of noisy figures."""

import collections
import datetime
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy
import torch

from tools.benchmark.rows import LARGEST_DRIFT, Row
from tools.benchmark.targets import Target

_COLUMNS = (
    "work",
    "peer",
    "floor",
    "attainable",
    "median (min..max)",
    "ours",
    "peer's",
    "roof",
    "verdict",
    "timed in",
)
# Peers of some sections, by their modules.
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_OPENMP = ("libgomp", "libomp", "libiomp")
_TEXTS = (0, 1, 8, 9)  # Columns that begin at their left edge.


def table(rows: Sequence[Row], largest_drift: float = LARGEST_DRIFT) -> str:
    """The rows as text in columns, and below them what was left out."""
    measured = [row for row in rows if row.ratios or row.wrong]
    cells = [_COLUMNS, *(_cells(row, largest_drift) for row in measured)]
    if not any(row.timed for row in measured):
        cells = [line[:-1] for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if place in _TEXTS else text.rjust(width)
            for place, (text, width) in enumerate(
                zip(line, widths, strict=True)
            )
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, *_left_out(rows)])


def problems(rows: Sequence[Row], largest_drift: float = LARGEST_DRIFT) -> str:
    """Why the figures of these rows must not be reported; empty if they may.

    Args:
      rows: what was measured.
      largest_drift: of a hardware ceiling between rounds.

    Returns:
      A message that names the works.
    """
    noisy = {row.work: row.noise for row in rows if row.noise > largest_drift}
    if not noisy:
        return ""
    works = "\n".join(f"  {work}: {noise:.0%}" for work, noise in noisy.items())
    return (
        "benchmark: the machine is too noisy: what it can do at best drifted"
        f" by more than {largest_drift:.0%} between rounds, in every attempt,"
        f" beside\n{works}\nNothing is reported. Stop what else is running"
        " and start again; --allow_noise reports these figures, marked."
    )


def header(facts: dict[str, Any]) -> str:
    """The lines above a table."""
    lines = [f"{name}: {value}" for name, value in facts.items()]
    runtimes = facts["OpenMP runtimes"]
    if len(runtimes) > 1:
        lines.append(
            "WARNING: torch and the kernels have thread pools of their own"
        )
    return "\n".join(lines)


def write_json(path: str, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes everything that was measured, and on what."""
    content = {**facts, "rows": [_record(row) for row in rows]}
    write(path, json.dumps(content, indent=1) + "\n")


def write(path: str, text: str) -> None:
    """Writes a file whole, or leaves the one that is there."""
    pathlib.Path(path + ".new").write_text(text)
    os.replace(path + ".new", path)


def read_row(record: dict[str, Any]) -> Row:
    """A row from what write_json wrote."""
    fields = {name: record[name] for name in Row.__dataclass_fields__}
    if record["target"]:
        fields["target"] = Target(
            (record["work"],), record["peer"], **record["target"]
        )
    return Row(**fields)


@functools.cache
def facts(device: torch.device, threads: int) -> dict[str, Any]:
    """Command, commit, hardware and versions, at the first call."""
    result = {
        "command": " ".join(["benchmark", *sys.argv[1:]]),
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "commit": _commit(),
        "CPU": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "threads": threads,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "NumPy": numpy.__version__,
        "C library": " ".join(platform.libc_ver()),
        "OpenMP runtimes": _openmp_runtimes(),
    }
    for module, name in _RUNTIMES.items():
        if module in sys.modules:
            result[name] = sys.modules[module].__version__
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        result["GPU"] = properties.name
        result["CUDA"] = torch.version.cuda
        result["driver"] = _output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        )
    return result


def _cells(row: Row, largest_drift: float) -> tuple[str, ...]:
    target = row.target
    return (
        row.work,
        row.peer,
        _ratio(target.floor) if target else "",
        _ratio(target.attainable) if target else "",
        _spread(row.ratios),
        _amount(row.ours, row.unit),
        _amount(row.theirs, row.unit),
        "" if row.share is None else f"{row.share:.0%}",
        row.verdict(largest_drift),
        row.timed,
    )


def _left_out(rows: Sequence[Row]) -> list[str]:
    """One line for each peer and reason, however many works it misses."""
    works = collections.Counter(
        (row.peer, row.note) for row in rows if not row.ratios and not row.wrong
    )
    return [
        f"{peer}: {note} ({count} works)"
        for (peer, note), count in works.items()
    ]


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    median = _ratio(statistics.median(ratios))
    if len(ratios) == 1:
        return median
    return f"{median} ({_figure(min(ratios))}..{_figure(max(ratios))})"


def _amount(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_figure(value)} {unit}"


def _ratio(value: float) -> str:
    return f"{_figure(value)}x"


def _figure(value: float) -> str:
    """Three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _record(row: Row) -> dict[str, Any]:
    record = {name: getattr(row, name) for name in row.__dataclass_fields__}
    target = row.target
    record["target"] = target and {
        "floor": target.floor,
        "attainable": target.attainable,
        "moonshot": target.moonshot,
        "smaller_is_better": target.smaller_is_better,
    }
    if row.ratios:
        record["median"] = row.median
        record["min"], record["max"] = min(row.ratios), max(row.ratios)
    return record


def _processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _openmp_runtimes() -> list[str]:
    """File names of the OpenMP runtimes that are mapped; should be one."""
    maps = pathlib.Path("/proc/self/maps").read_text().split()
    return sorted(
        {
            pathlib.Path(path).name
            for path in maps
            if pathlib.Path(path).name.startswith(_OPENMP)
        }
    )


def _commit() -> str:
    folder = os.environ.get("BUILD_WORKSPACE_DIRECTORY", ".")
    commit = _output("git", "-C", folder, "rev-parse", "--short", "HEAD")
    changed = _output(
        "git", "-C", folder, "status", "--porcelain", "--untracked-files=no"
    )
    return f"{commit} with changes" if commit and changed else commit


def _output(*command: str) -> str:
    """What a program prints; nothing where there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
