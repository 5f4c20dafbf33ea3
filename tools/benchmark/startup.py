"""Subcommand startup: imports, first calls, asking, and equal bits.

Imports are timed in fresh processes; the rest in this one.
"""

import functools
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import san
from tools.benchmark.measurement import Entry, Quantity, Settings

_IMPORTS = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import san
print(middle - start, time.perf_counter() - middle)
"""
# Of what is too short to be timed once.
_CALLS = 20


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    makers = {
        "import san": _import,
        "first call at a new shape": _first_call,
        "asking why not fused, SAN10-pair": _asking,
        "different bits in runs of 1, 2 and 3 threads": _different_bits,
    }
    return [
        Entry(work, functools.partial(maker, work, settings))
        for work, maker in makers.items()
    ]


def _import(work: str, settings: Settings) -> Quantity:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # Our files as torch's: compiled by an earlier import, which can be told to
    # leave nothing behind.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def count() -> tuple[float, float]:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTS],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        before, ours = map(float, done.stdout.split())
        return ours * 1e3, before * 1e3

    count()  # Reads the files into the system's cache.
    return Quantity(work, "import torch", "ms", count, rounds=None, gain=False)


def _first_call(work: str, settings: Settings) -> Quantity:
    """Aggregation and its gradients at a shape, for the first time."""
    sizes = itertools.count(29)
    device = settings.device

    def seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
        start = time.perf_counter()
        output = san.ops.aggregation(x, weight, 7, padding=3)
        torch.autograd.grad(output.sum(), (x, weight))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def count() -> tuple[float, float]:
        size = next(sizes)
        x = torch.randn(8, 128, size, size, device=device)
        weight = torch.randn(8, 16, 49, size * size, device=device)
        x, weight = x.requires_grad_(), weight.requires_grad_()
        first, second = seconds(x, weight), seconds(x, weight)
        return first * 1e3, second * 1e3

    count()
    return Quantity(work, "second call", "ms", count, rounds=None, gain=False)


def _asking(work: str, settings: Settings) -> Quantity:
    """What every call of a network spends on the rule of what is fused."""
    device = settings.device
    model = san.create_model("san10_pair").to(device).eval()
    images = torch.randn(1, 3, 224, 224, device=device)

    def count() -> tuple[float, float]:
        with torch.no_grad():
            return (
                _least(device, lambda: _ask(model, images)),
                _least(device, lambda: model(images)),
            )

    count()
    peer = "inference, batch 1"
    return Quantity(work, peer, "ms", count, rounds=None, gain=False)


def _ask(model: Any, images: torch.Tensor) -> None:
    """Asks what a call of the network asks, each question once."""
    model.why_unfused(images)
    for stage in range(model.num_stages):
        for block in model.get_submodule(f"layer{stage}"):
            block.why_unfused(images)  # Of its attention, too.


def _least(device: torch.device, call: Callable[[], object]) -> float:
    """The shortest of some calls, in milliseconds."""
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def _different_bits(work: str, settings: Settings) -> Quantity:
    """How many results of runs on 2, 3 and 1 threads are not the first's."""

    def count() -> tuple[float, float]:
        before = torch.get_num_threads()
        runs = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            runs.append(_results(settings.device))
        torch.set_num_threads(before)
        different = sum(
            not torch.equal(a, b)
            for run in runs[1:]
            for a, b in zip(runs[0], run, strict=True)
        )
        return float(different), float(len(runs[0]) * (len(runs) - 1))

    return Quantity(work, "all results", "results", count, gain=False)


def _results(device: torch.device) -> Sequence[torch.Tensor]:
    """Both operators and their gradients, at an odd size.

    (Whole networks would also ask it of torch's own convolutions, which
    round differently on two threads.)
    """
    generator = torch.Generator().manual_seed(0)
    x, a, b, weight = (
        torch.randn(shape, generator=generator).to(device).requires_grad_()
        for shape in (
            (3, 32, 29, 27),
            *[(3, 5, 29, 27)] * 2,
            (3, 4, 49, 29 * 27),
        )
    )
    y = san.ops.aggregation(x, weight, 7, padding=3)
    z = san.ops.subtraction2(a, b, 7, padding=3)
    total = (y * y).sum() + (z * z).sum()
    return [y, z, *torch.autograd.grad(total, (x, weight, a, b))]
