"""The report as JSON, and what has changed since an earlier one."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tools.cuda_report import mix, model
from tools.cuda_report.control_flow import Loop
from tools.cuda_report.disassembly import Kernel
from tools.cuda_report.hardware import Device
from tools.cuda_report.model import Launch
from tools.cuda_report.targets import Verdict
from tools.cuda_report.totals import Total

_KIND = "cuda_report, a model"


def record(
    architecture: str,
    device: Device,
    issue_share: float,
    kernels: Sequence[Kernel],
    launches: Sequence[Launch],
    totals: Sequence[Total],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Everything, as JSON takes it: times in seconds, sizes in bytes."""
    return {
        "kind": _KIND,
        "architecture": architecture,
        "device": device.name,
        "issue_share": issue_share,
        "left_out": model.LEFT_OUT,
        "kernels": [_kernel(kernel) for kernel in kernels],
        "launches": [_launch(launch) for launch in launches],
        "totals": [_total(total) for total in totals],
        "targets": [vars(verdict) for verdict in verdicts],
        "without_entry": model.without_entry(kernels),
    }


def _kernel(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "registers": kernel.registers,
        "stack": kernel.stack,
        "local": kernel.local,
        "spills": kernel.spills,
        "shared": kernel.shared,
        "instructions": len(kernel.instructions),
        "mix": mix.count(kernel.instructions),
        "widths": mix.widths(kernel.instructions),
        "loops": [_loop(loop) for loop in model.loops_of(kernel).inner],
    }


def _loop(loop: Loop) -> dict[str, Any]:
    return {
        "address": loop.address,
        "mix": mix.count(loop.own),
        "widths": mix.widths(loop.own),
        "loops": [_loop(inner) for inner in loop.inner],
    }


def _launch(launch: Launch) -> dict[str, Any]:
    assert launch.work
    return {
        "group": launch.entry.group,
        "what": launch.entry.what,
        "type": launch.type_name,
        "layer": launch.layer.number,
        "kernel": launch.kernel,
        "problem": launch.problem,
        "blocks": launch.work.blocks,
        "threads": launch.work.threads,
        "shared_bytes": launch.work.shared_bytes,
        "blocks_per_multiprocessor": launch.blocks_per_multiprocessor,
        "bytes": launch.work.bytes,
        "flops": launch.work.flops,
        "slots": launch.slots,
        "mix": dict(launch.mix),
        "flops_of_instructions": launch.flops,
        "seconds_by_bound": dict(launch.seconds),
        "seconds": None if launch.problem else launch.time,
    }


def _total(total: Total) -> dict[str, Any]:
    return {**vars(total), "layer": total.layer and total.layer.number}


def read(path: pathlib.Path) -> dict[str, Any]:
    """An earlier report.

    Raises:
      ValueError: if the file is none.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cuda_report: --against must be a file that --json wrote, got"
            f" {path}: {error}"
        ) from error
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise ValueError(
            "cuda_report: --against must be a file that --json wrote, got"
            f" {path}"
        )
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What differs, in text: times of launches and totals, and registers.

    Raises:
      ValueError: if the two model different things.
    """
    for what in ("architecture", "device", "issue_share"):
        if before[what] != after[what]:
            raise ValueError(
                f"cuda_report: --against must be of the same {what}, got"
                f" {before[what]} beside {after[what]}"
            )
    lines = ["Before and after, in ms"]
    lines += _changed_times(
        before["totals"], after["totals"], ("group", "type_name", "passed")
    )
    lines += _changed_times(
        before["launches"], after["launches"], ("group", "type", "what")
    )
    lines += _changed_kernels(before["kernels"], after["kernels"])
    if len(lines) == 1:
        lines.append("  nothing differs")
    return "\n".join(lines) + "\n"


def _changed_times(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> list[str]:
    def by_key(found: Sequence[Mapping[str, Any]]) -> dict[Any, Any]:
        return {
            (*(one[name] for name in names), one["layer"]): one["seconds"]
            for one in found
        }

    old, new = by_key(before), by_key(after)
    lines = []
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) == new.get(key) and key in old and key in new:
            continue
        *words, layer = key
        where = "SAN10" if layer is None else f"layer {layer}"
        lines.append(
            f"  {', '.join(words)}, {where}: "
            f"{_time(old, key)} -> {_time(new, key)}{_ratio(old, new, key)}"
        )
    return lines


def _time(times: Mapping[Any, float | None], key: Any) -> str:
    if key not in times:
        return "none"
    seconds = times[key]
    return "not modelled" if seconds is None else f"{seconds * 1e3:.3f}"


def _ratio(old: Mapping[Any, Any], new: Mapping[Any, Any], key: Any) -> str:
    if not old.get(key) or not new.get(key):
        return ""
    return f" ({old[key] / new[key]:.2f}x)"


def _changed_kernels(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[str]:
    old = {one["name"]: one for one in before}
    new = {one["name"]: one for one in after}
    lines = [f"  gone: {name}" for name in old if name not in new]
    lines += [f"  new: {name}" for name in new if name not in old]
    for name in new.keys() & old.keys():
        differing = [
            f"{what} {old[name][what]} -> {new[name][what]}"
            for what in ("registers", "spills", "shared", "instructions")
            if old[name][what] != new[name][what]
        ]
        if differing:
            lines.append(f"  {name}: {', '.join(differing)}")
    return sorted(lines)
