"""The model: how long each launch takes, from the code that it runs.

Time is that of the slowest of what a launch needs: slots of the schedulers, of
which a share is taken to be used; the lanes of each class of instructions;
memory, each tensor once at the speed of a copy; tensor cores. All but memory is
divided by how evenly the blocks fill the multiprocessors.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

from tools.cuda_report import control_flow, hardware, mix, names, trips
from tools.cuda_report.disassembly import Kernel
from tools.cuda_report.entries import TYPES, Entry, Work
from tools.cuda_report.families import (
    norms,
    pairwise,
    pairwise_tensor,
    patchwise,
    windows,
)
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import LAYERS, Layer

ENTRIES: tuple[Entry, ...] = (
    *pairwise.ENTRIES,
    *pairwise_tensor.ENTRIES,
    *patchwise.ENTRIES,
    *windows.ENTRIES,
    *norms.ENTRIES,
)
LEFT_OUT = (
    "waiting (for memory, barriers or earlier instructions, but for the share"
    " of issue slots), cache misses beyond each tensor once, bank conflicts and"
    " wide accesses to shared memory that lanes do not share, time between"
    " launches, subroutines, and blocks of code that a branch passes by, which"
    " count as run"
)
_ANY_TYPE = "(?:float|double|float16|bfloat16|SplitFloat)"


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch of a kernel in a layer, or why it is not modelled.

    Attributes:
      entry: what declares it.
      layer: of SAN10.
      type_name: of entries.TYPES.
      kernel: the kernel's name.
      problem: why there is no model, or "".
      work: what is launched.
      blocks_per_multiprocessor: side by side.
      slots: instructions that warps issue.
      mix: these by class.
      flops: of the instructions.
      seconds: by what bounds it: `issue`, `bytes`, `tensor`, or a class.
    """

    entry: Entry
    layer: Layer
    type_name: str
    kernel: str
    problem: str = ""
    work: Work | None = None
    blocks_per_multiprocessor: int = 0
    slots: float = 0
    mix: Mapping[str, float] = dataclasses.field(default_factory=dict)
    flops: float = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def time(self) -> float:
        """Seconds of the launch."""
        return self.seconds[self.bound]

    def bandwidth_share(self, device: Device) -> float:
        """Part of a copy's bandwidth that it reaches."""
        assert self.work
        return self.work.bytes / self.time / device.copy_bandwidth


def launches(
    kernels: Mapping[str, Kernel], device: Device, issue_share: float
) -> list[Launch]:
    """All launches of the entries, in all layers and types.

    Args:
      kernels: of one architecture, by name.
      device: that stands for it.
      issue_share: part of the schedulers' slots that is used.
    """
    found = []
    for entry in ENTRIES:
        for type_name in entry.types:
            for layer in LAYERS:
                work = entry.work(layer, TYPES[type_name], device)
                if work is not None:
                    found.append(
                        _launch(
                            entry,
                            layer,
                            type_name,
                            work,
                            kernels,
                            device,
                            issue_share,
                        )
                    )
    return found


def _launch(
    entry: Entry,
    layer: Layer,
    type_name: str,
    work: Work,
    kernels: Mapping[str, Kernel],
    device: Device,
    issue_share: float,
) -> Launch:
    name = entry.name(layer, TYPES[type_name])
    launch = Launch(entry, layer, type_name, name, work=work)
    if name not in kernels:
        return dataclasses.replace(launch, problem="there is no such kernel")
    kernel = kernels[name]
    launch = dataclasses.replace(launch, kernel=kernel.name)
    side_by_side = hardware.blocks_per_multiprocessor(
        device,
        kernel.registers,
        work.threads,
        work.shared_bytes + _static(kernel),
    )
    if not side_by_side:
        problem = f"a block needs more than a multiprocessor of {device.name}"
        return dataclasses.replace(launch, problem=problem)
    root = loops_of(kernel)
    try:
        matched = trips.match(root.inner, entry.loops)
    except ValueError as error:
        return dataclasses.replace(launch, problem=str(error))
    runs = trips.executions(root, matched, work.sizes)
    warps = work.blocks * -(-work.threads // 32)
    counts: collections.Counter[str] = collections.Counter()
    flops = tensor = group_tensor = 0.0
    for run in runs:
        for kind, count in mix.count(run.code).items():
            counts[kind] += run.times * warps * count  # type: ignore[assignment]
        for instruction in run.code:
            done = mix.flops(instruction) * run.times * warps
            flops += done
            if mix.class_of(instruction) == "tensor":
                # The rates are those of half types, of which TF32 has half.
                done *= 2 if ".TF32" in instruction.opcode else 1
                wide = mix.of_warp_group(instruction)
                group_tensor += done * wide
                tensor += done * (not wide)
    seconds = _seconds(counts, work, device, issue_share)
    if tensor or group_tensor:
        seconds["tensor"] = (
            tensor / device.tensor_flops
            + group_tensor / device.group_tensor_flops
        ) * _unevenness(work, device)
    return dataclasses.replace(
        launch,
        blocks_per_multiprocessor=side_by_side,
        slots=sum(counts.values()),
        mix=dict(counts.most_common()),
        flops=flops,
        seconds=seconds,
    )


def _static(kernel: Kernel) -> int:
    # From sm_90 on what is reserved counts as static.
    reserved = hardware.RESERVED_SHARED
    return kernel.shared - reserved * (kernel.shared >= reserved)


def _unevenness(work: Work, device: Device) -> float:
    """The fullest multiprocessor's blocks over the mean."""
    mean = work.blocks / device.multiprocessors
    return math.ceil(mean) / mean


def _seconds(
    counts: Mapping[str, float],
    work: Work,
    device: Device,
    issue_share: float,
) -> dict[str, float]:
    per_clock = device.multiprocessors * device.clock / 32
    cycles: collections.Counter[str] = collections.Counter()
    for kind, count in counts.items():
        memory = kind.endswith((" load", " store"))
        lanes = device.lanes.get(kind, 128)
        if memory:
            lanes = hardware.MEMORY_LANES
        name = "load and store" if memory else hardware.PIPES.get(kind, kind)
        cycles[name] += count / lanes  # type: ignore[assignment]
    uneven = _unevenness(work, device)
    issue = sum(counts.values()) / device.issue_rate
    return {
        "issue": issue / issue_share * uneven,
        "bytes": work.bytes / device.copy_bandwidth,
        **{
            name: count / per_clock * uneven
            for name, count in cycles.items()
            if name not in ("tensor", "control", "barrier", "other")
        },
    }


@functools.cache
def loops_of(kernel: Kernel) -> control_flow.Loop:
    """The loops of a kernel."""
    return control_flow.loops(kernel.instructions)


def without_entry(kernels: Sequence[Kernel]) -> list[str]:
    """The kernels that no entry declares, for any type or size."""
    patterns = [re.compile(_pattern(entry.kernel)) for entry in ENTRIES]
    return [
        kernel.name
        for kernel in kernels
        if not any(
            pattern.fullmatch(name)
            for pattern in patterns
            for name in (kernel.name, names.without_source(kernel.name))
        )
    ]


def _pattern(kernel: str) -> str:
    found = re.escape(kernel).replace("<float", f"<{_ANY_TYPE}")
    for of_type in ("type", "exact"):
        found = found.replace(rf"\{{{of_type}\}}", _ANY_TYPE)
    return re.sub(r"\\{\w+\\}", r"\\d+", found)
