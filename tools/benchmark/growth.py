"""Subcommand growth: how cost grows with batch, pixels and footprint.

Time per image should be flat in the batch and linear in the pixels, and the
memory saved for the backward pass independent of the footprint. Of the
pairwise attention core in training, san's and the eager one's.
"""

import copy
import functools
from collections.abc import Sequence

import torch
from torch import nn

import san
from tools.benchmark import backends
from tools.benchmark.core import inputs_of, make_pair, training
from tools.benchmark.errors import step_error
from tools.benchmark.measurement import (
    Case,
    Contender,
    Entry,
    Quantity,
    Settings,
)
from tools.benchmark.networks import saved_bytes

_CHANNELS = 256
BATCHES = (1, 2, 4, 8)
SIDES = (14, 20, 28, 40, 56)
FOOTPRINTS = (3, 5, 7, 9, 11)

# Work's name, in terms of the quantity that grows.
BATCH_WORK = "time over batch {}"
SIDE_WORK = "time over pixels {}"
FOOTPRINT_WORK = "saved memory over footprint {}"


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    result = []
    for batch in BATCHES:
        work = BATCH_WORK.format(batch)
        build = functools.partial(_time, work, batch, 28, settings)
        result.append(Entry(work, build))
    for side in SIDES:
        work = SIDE_WORK.format(side * side)
        build = functools.partial(_time, work, 2, side, settings)
        result.append(Entry(work, build))
    for footprint in FOOTPRINTS:
        work = FOOTPRINT_WORK.format(footprint)
        build = functools.partial(_memory, work, footprint, settings)
        result.append(Entry(work, build))
    return result


def _time(work: str, batch: int, side: int, settings: Settings) -> Case:
    cores = make_pair("pair", _CHANNELS, 7, settings.device)
    inputs = _inputs(batch, side, settings.device)
    ours = training(cores[0], inputs_of(backends.OURS, inputs))
    eager = training(cores[1], inputs)
    wide = copy.deepcopy(cores[1]).double()
    return Case(
        work=work,
        ours=Contender("ours", ours, backends.chooser(backends.OURS)),
        peers=[Contender("eager", eager)],
        reference=training(wide, [t.double() for t in inputs]),
        tolerance=1e-2,
        error=step_error,
    )


def _memory(work: str, footprint: int, settings: Settings) -> Quantity:
    cores = make_pair("pair", _CHANNELS, footprint, settings.device)
    inputs = _inputs(1, 28, settings.device)

    def saved(core: nn.Module, inputs: Sequence[torch.Tensor]) -> float:
        leaves = [t.detach().requires_grad_() for t in inputs]
        return saved_bytes(functools.partial(core, *leaves), core) / 1e6

    def count() -> tuple[float, float]:
        san.set_attention_backend(backends.OURS)
        joined = inputs_of(backends.OURS, inputs)
        return saved(cores[0], joined), saved(cores[1], inputs)

    return Quantity(work, "eager", "MB", count)


def _inputs(
    batch: int, side: int, device: torch.device
) -> Sequence[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn((batch, count, side, side), generator=generator).to(device)
        for count in (_CHANNELS // 16, _CHANNELS // 16, _CHANNELS // 4)
    ]
