"""The report as text, within 100 columns."""

import collections
import re
import textwrap
from collections.abc import Mapping, Sequence

from tools.cuda_report import hardware, mix, model, trips
from tools.cuda_report.control_flow import Loop
from tools.cuda_report.disassembly import Kernel
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, LAYERS
from tools.cuda_report.model import Launch
from tools.cuda_report.targets import Verdict
from tools.cuda_report.totals import Total

WIDTH = 100
_NAME = 44
_BOUNDS = {"issue": "i", "bytes": "b", "tensor": "t", "load and store": "l"}
_TYPE = re.compile(r"\b(?:float|double|float16|bfloat16)\b")
# Threads for which the table of kernels says how many blocks fit.
_THREADS = 256


def head(device: Device, architecture: str, issue_share: float) -> str:
    """What the figures are, in the first line."""
    return (
        "This is a model, made from machine code: nothing was measured.\n"
        f"{architecture} as {device.name}: {device.multiprocessors}"
        f" multiprocessors at {device.clock / 1e9:.2f} GHz,"
        f" {device.copy_bandwidth / 1e12:.1f} TB/s,"
        f" {issue_share:.0%} of issue slots used;\n"
        f"SAN10 at 224 x 224, batch {BATCH}\n"
    )


def kernels_table(kernels: Sequence[Kernel], device: Device) -> str:
    """Each kernel as it was compiled."""
    lines = [
        "Kernels: registers, stack bytes, accesses that spill, static shared"
        " bytes, blocks of 256 threads",
        "that registers allow a multiprocessor, instructions, loops, FFMA and"
        " tensor instructions in",
        "them, and the widths of global and shared accesses in bits.",
        f"{'':{_NAME}} reg stk spl shar blk  inst lps ffma mma  global  shared",
    ]
    for kernel in kernels:
        root = model.loops_of(kernel)
        in_loops = [i for loop in root.inner for i in loop.all()]
        counts = mix.count(in_loops)
        widths = mix.widths(kernel.instructions)
        blocks = hardware.blocks_per_multiprocessor(
            device, kernel.registers, _THREADS, kernel.shared
        )
        name = kernel.name
        if len(name) > _NAME:
            lines.append(name)
            name = ""
        lines.append(
            f"{name:{_NAME}}{kernel.registers:4}"
            f"{kernel.stack:4}{kernel.spills:4}{kernel.shared:5}{blocks:4}"
            f"{len(kernel.instructions):6}{_num_loops(root):4}"
            f"{counts.get('ffma', 0):5}{counts.get('tensor', 0):4}"
            f" {_span(widths, 'global'):>7} {_span(widths, 'shared'):>7}"
        )
    opcodes = sorted({o for k in kernels for o in mix.unknown(k.instructions)})
    if opcodes:
        lines.append(f"Of no known class: {', '.join(opcodes)}")
    return "\n".join(lines) + "\n"


def _num_loops(loop: Loop) -> int:
    return sum(1 + _num_loops(inner) for inner in loop.inner)


def _span(widths: Mapping[str, Mapping[int, int]], memory: str) -> str:
    found = {
        width
        for kind, of_kind in widths.items()
        if kind.startswith(memory)
        for width in of_kind
    }
    if not found:
        return "-"
    least, most = min(found), max(found)
    return str(most) if least == most else f"{least}-{most}"


def loops_list(kernels: Sequence[Kernel], launches: Sequence[Launch]) -> str:
    """The loops of kernels: what they do, and their instructions by class."""
    lines = []
    for kernel in kernels:
        lines.append(kernel.name)
        what: dict[int, str] = {}
        for launch in launches:
            if launch.kernel == kernel.name and not launch.problem:
                assert launch.work
                root = model.loops_of(kernel)
                matched = trips.match(root.inner, launch.entry.loops)
                runs = trips.executions(root, matched, launch.work.sizes)
                what = {run.loop.address: run.what for run in runs}
                break
        _add_loops(model.loops_of(kernel), 1, what, lines)
    return "\n".join(lines) + "\n"


def _add_loops(
    loop: Loop, depth: int, what: Mapping[int, str], lines: list[str]
) -> None:
    for inner in loop.inner:
        counts = mix.count(inner.own)
        text = ", ".join(f"{n} {kind}" for kind, n in counts.items())
        accesses = ", ".join(
            f"{kind} {width}: {n}"
            for kind, of_kind in mix.widths(inner.own).items()
            for width, n in of_kind.items()
        )
        start = f"{inner.address:#x} {what.get(inner.address, '')}".rstrip()
        lines += _wrapped(f"{start}: {len(inner.own)} ({text})", depth)
        if accesses:
            lines += _wrapped(f"bits of {accesses}", depth + 2)
        _add_loops(inner, depth + 1, what, lines)


def launches_table(launches: Sequence[Launch], device: Device) -> str:
    """Times of launches, by group and type, layer by layer."""
    lines = []
    keys = dict.fromkeys((a.entry.group, a.type_name) for a in launches)
    for group, type_name in keys:
        streams = group in ("window operator", "norm and stem")
        what = "share of copy bandwidth" if streams else "warps side by side"
        lines.append(
            f"{group}, {type_name}: us of a launch, its bound (i issue, b bytes,"
            f" t tensor,"
        )
        lines.append(f"l load and store, o other lanes), and {what}")
        lines.append(
            " " * _NAME
            + "".join(f"{'layer ' + str(a.number):>10}" for a in LAYERS)
        )
        of_key = [
            a
            for a in launches
            if (a.entry.group, a.type_name) == (group, type_name)
        ]
        for entry in dict.fromkeys(a.entry for a in of_key):
            by_layer = {a.layer.number: a for a in of_key if a.entry is entry}
            cells = [
                _cell(by_layer.get(layer.number), device, streams)
                for layer in LAYERS
            ]
            lines.append(f"{entry.what:{_NAME}}" + "".join(cells))
        lines.append("")
    return "\n".join(lines)


def _cell(launch: Launch | None, device: Device, streams: bool) -> str:
    if launch is None:
        return f"{'-':>10}"
    if launch.problem:
        return f"{'?':>10}"
    assert launch.work
    bound = _BOUNDS.get(launch.bound, "o")
    if streams:
        beside = f"{launch.bandwidth_share(device):.0%}"
    else:
        warps = -(-launch.work.threads // 32)
        beside = str(launch.blocks_per_multiprocessor * warps)
    return f"{launch.time * 1e6:6.0f}{bound}{beside:>3}"


def totals_table(totals: Sequence[Total]) -> str:
    """Passes through a block of each layer and through SAN10, beside eager."""
    lines = [
        "Passes through one attention core of each layer, and through those of"
        " SAN10: bytes and flops",
        "that the task asks for, instructions of warps, what bounds the longest"
        " launch, modelled time",
        "and the published design's with eager PyTorch.",
        f"{'':46}{'MB':>9}{'GFLOP':>8}{'Ginst':>8}{'bound':>7}{'ms':>9}"
        f"{'eager ms':>10}",
    ]
    for total in totals:
        where = f"layer {total.layer.number}" if total.layer else "SAN10"
        name = f"{total.group}, {total.type_name}, {total.passed}, {where}"
        time = "?" if total.seconds is None else f"{total.seconds * 1e3:.3f}"
        peer = total.eager_seconds
        lines.append(
            f"{name:46}{total.bytes / 1e6:9.1f}{total.flops / 1e9:8.1f}"
            f"{total.slots / 1e9:8.3f}{total.bound[:6]:>7}{time:>9}"
            f"{'-' if peer is None else f'{peer * 1e3:.3f}':>10}"
        )
        if not total.layer:
            lines.append("")
    return "\n".join(lines)


def verdicts(found: Sequence[Verdict]) -> str:
    """The targets and whether they are reached."""
    lines = ["Targets, in this model"]
    for verdict in found:
        words = {True: "reached", False: "MISSED", None: "unknown"}
        lines.append(f"{words[verdict.reached]:8} {verdict.target}")
        lines.append(f"{'':9}{verdict.modelled}")
    return "\n".join(lines) + "\n"


def not_modelled(
    launches: Sequence[Launch], without_entry: Sequence[str]
) -> str:
    """What has no figure, and what no figure has in it."""
    lines = []
    problems = dict.fromkeys(
        f"{a.kernel}: {a.problem}" for a in launches if a.problem
    )
    if problems:
        lines += [
            "Not modelled, marked ? above:",
            *(f"  {p}" for p in problems),
        ]
    if without_entry:
        lines.append("Not modelled, without an entry:")
        names = collections.Counter(
            _TYPE.sub("T", name) for name in without_entry
        )
        lines += [f"  {name}, {count} of it" for name, count in names.items()]
    lines += ["Left out of every figure:", *_wrapped(model.LEFT_OUT)]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, depth: int = 1) -> list[str]:
    indent = "  " * depth
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
    )
