"""What the kernels are meant to reach, in the model of an H200 at 60% issue."""

import dataclasses
from collections.abc import Sequence

from tools.cuda_report.disassembly import Kernel
from tools.cuda_report.entries import TYPES
from tools.cuda_report.hardware import Device
from tools.cuda_report.model import Launch
from tools.cuda_report.totals import Total

# Group, type, pass, and the most seconds of SAN10's cores at batch 64; None for
# eager's.
_TIMES = (
    ("pairwise core", "bfloat16", "forward", 1.5e-3),
    ("pairwise core", "bfloat16", "training", 12e-3),
    ("pairwise core", "float32", "training", None),
    ("patchwise core", "bfloat16", "forward", 1.5e-3),
    ("patchwise core", "bfloat16", "training", 8e-3),
)
_STREAMS = ("window operator", "norm and stem")
_SHARES = {"float32": 0.7, "bfloat16": 0.6}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target, what is modelled, and whether it is reached.

    Attributes:
      target: in words.
      modelled: in words.
      reached: None where it cannot be told.
    """

    target: str
    modelled: str
    reached: bool | None


def judge(
    kernels: Sequence[Kernel],
    launches: Sequence[Launch],
    totals: Sequence[Total],
    device: Device,
) -> list[Verdict]:
    """All targets. Kernels for float64 are for tests, and have none."""
    return [
        *(_time(totals, *target) for target in _TIMES),
        *(
            _share(launches, group, name, device)
            for group in _STREAMS
            for name in TYPES
        ),
        _spills(kernels),
        _specialised(launches),
    ]


def _time(
    totals: Sequence[Total],
    group: str,
    type_name: str,
    passed: str,
    limit: float | None,
) -> Verdict:
    found = [
        total
        for total in totals
        if (total.group, total.type_name, total.passed, total.layer)
        == (group, type_name, passed, None)
    ]
    total = found[0] if found else None
    most = total.eager_seconds if total and limit is None else limit
    assert most is not None
    than = (
        f"eager's {most * 1e3:.1f} ms"
        if limit is None
        else (f"{most * 1e3:.1f} ms")
    )
    target = f"{group}s of SAN10, {type_name}, {passed}: at most {than}"
    if total is None or total.seconds is None:
        return Verdict(target, "not modelled", None)
    return Verdict(
        target, f"{total.seconds * 1e3:.2f} ms", total.seconds <= most
    )


def _share(
    launches: Sequence[Launch], group: str, type_name: str, device: Device
) -> Verdict:
    least = _SHARES[type_name]
    found = [
        launch
        for launch in launches
        if launch.entry.group == group and launch.type_name == type_name
    ]
    target = f"every {group}, {type_name}: {least:.0%} of copy bandwidth"
    modelled = [launch for launch in found if not launch.problem]
    below = [a for a in modelled if a.bandwidth_share(device) < least]
    words = f"{len(below)} of {len(modelled)} launches below"
    if below:
        worst = min(below, key=lambda a: a.bandwidth_share(device))
        words += (
            f", the least {worst.bandwidth_share(device):.0%}:"
            f" {worst.entry.what}, layer {worst.layer.number}"
        )
    if len(modelled) < len(found):
        words += f"; {len(found) - len(modelled)} not modelled"
        return Verdict(target, words, False if below else None)
    return Verdict(target, words, not below)


def _spills(kernels: Sequence[Kernel]) -> Verdict:
    found = [kernel for kernel in kernels if "double" not in kernel.name]
    spilled = [kernel.name for kernel in found if kernel.spills]
    words = f"{len(spilled)} of {len(found)} kernels spill"
    return Verdict("no spills", words, not spilled)


def _specialised(launches: Sequence[Launch]) -> Verdict:
    general = dict.fromkeys(
        launch.entry.kernel
        for launch in launches
        if not launch.entry.specialised
        and launch.entry.group != "norm and stem"
    )
    return Verdict(
        "every kernel of the attention specialised for its layer's sizes",
        f"{len(general)} are not",
        not general,
    )
