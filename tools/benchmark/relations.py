"""Subcommand relations: what no fused operator computes, beside unfold.

The relations of the paper's table 4 alone, at the sizes of SAN10's stages 1
to 4, batch 8, float32: forward, and forward with gradients. Then the peak
memory of a training step, of the rows of the paper's tables whose attention
runs module by module.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import san
from san.attention.relations import PAIRWISE, PATCHWISE
from tools.benchmark import backends, plain_relations, plain_rows, targets
from tools.benchmark.measurement import (
    Case,
    Contender,
    Entry,
    Quantity,
    Settings,
)
from tools.benchmark.networks import peak_bytes
from tools.benchmark.operators import LAYERS, Layer

# Of what makes K**2 channels; a batch of them is large.
_CLIQUE_BATCH = 1
_BATCH = 8
_ROW_BATCH = 2
_SIDE = 224

_KINDS = {
    "pairwise": (
        PAIRWISE,
        plain_relations.PAIRWISE_BY_UNFOLD,
        plain_relations.PAIRWISE_BY_TAP_LOOP,
    ),
    "patchwise": (
        PATCHWISE,
        plain_relations.PATCHWISE_BY_UNFOLD,
        plain_relations.PATCHWISE_BY_TAP_LOOP,
    ),
}
_SKIPPED = "--quick leaves it out; unfold is measured"


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    result = [
        Entry(
            work,
            functools.partial(_case, work, kind, name, mode, layer, settings),
        )
        for kind, (known, *_) in _KINDS.items()
        for name in known
        for mode in ("forward", "gradients")
        for layer in LAYERS[1:]
        for work in targets.layers(f"{kind} {name} {mode}", (layer.number,))
    ]
    parts = {"block": _block} if settings.quick else _PARTS
    for part, measure in parts.items():
        for row in targets.UNFUSED_ROWS:
            work = targets.unfused_memory(row, part)
            build = functools.partial(measure, work, row, settings)
            result.append(Entry(work, build))
    return result


def _case(
    work: str,
    kind: str,
    name: str,
    mode: str,
    layer: Layer,
    settings: Settings,
) -> Case:
    known, by_unfold, by_tap_loop = _KINDS[kind]
    images = _images(name, layer, settings.device)
    make = _forward if mode == "forward" else _gradients
    ways = {"unfold": by_unfold[name]}
    skipped = {}
    if name in by_tap_loop and settings.quick:
        skipped["tap loop"] = _SKIPPED
    elif name in by_tap_loop:
        ways["tap loop"] = by_tap_loop[name]
    k = layer.kernel_size
    return Case(
        work=work,
        ours=Contender(
            "ours", make(known[name](), images, k), backends.chooser("unfused")
        ),
        peers=[
            Contender(peer, make(way, images, k)) for peer, way in ways.items()
        ],
        reference=lambda: make(
            by_unfold[name], [image.double() for image in images], k
        )(),
        skipped=skipped,
    )


def _images(
    name: str, layer: Layer, device: torch.device
) -> Sequence[torch.Tensor]:
    """Phi and psi."""
    generator = torch.Generator().manual_seed(0)
    batch = _CLIQUE_BATCH if name == "clique" else _BATCH
    shape = (batch, layer.relation_channels, layer.size, layer.size)
    return [torch.randn(shape, generator=generator).to(device) for _ in "ab"]


def _forward(
    way: Callable[..., torch.Tensor],
    images: Sequence[torch.Tensor],
    kernel_size: int,
) -> Callable[[], torch.Tensor]:
    return lambda: way(*images, kernel_size)


def _gradients(
    way: Callable[..., torch.Tensor],
    images: Sequence[torch.Tensor],
    kernel_size: int,
) -> Callable[[], Sequence[torch.Tensor]]:
    """Forward and backward: the relation and both gradients."""
    leaves = [image.clone().requires_grad_() for image in images]
    seed: list[torch.Tensor] = []

    def run() -> Sequence[torch.Tensor]:
        relation = way(*leaves, kernel_size)
        if not seed:
            generator = torch.Generator().manual_seed(1)
            drawn = torch.randn(relation.shape, generator=generator)
            seed.append(drawn.to(relation))
        grads = torch.autograd.grad(relation, leaves, seed[0])
        return [relation.detach(), *grads]

    return run


def _block(work: str, row: str, settings: Settings) -> Quantity:
    """Of the attention of stage 1, where images are largest."""
    layer = LAYERS[1]
    batch = _CLIQUE_BATCH if row.endswith("clique") else _BATCH
    shape = (batch, 4 * layer.channels, layer.size, layer.size)
    return _peak(work, lambda: _model(row).layer1[0].sam, shape, settings)


def _network(work: str, row: str, settings: Settings) -> Quantity:
    shape = (_ROW_BATCH, 3, _SIDE, _SIDE)
    return _peak(work, lambda: _model(row), shape, settings)


def _model(row: str) -> Any:
    torch.manual_seed(0)
    return san.create_model(row)


def _peak(
    work: str,
    make: Callable[[], nn.Module],
    shape: Sequence[int],
    settings: Settings,
) -> Quantity:
    def count() -> tuple[float, float]:
        san.set_attention_backend(backends.OURS)
        model = make().to(settings.device).train()
        images = torch.randn(*shape, device=settings.device)
        run = functools.partial(_step, model, list(model.parameters()))
        unit = 1e6 * len(images)
        ours = peak_bytes(run, images)
        with plain_rows.by_unfold(model):
            return ours / unit, peak_bytes(run, images) / unit

    return Quantity(work, "unfold", "MB", count)


def _step(
    model: nn.Module, parameters: Sequence[nn.Parameter], images: torch.Tensor
) -> None:
    """Forward and backward."""
    inputs = images.detach().requires_grad_()
    output = model(inputs)
    torch.autograd.grad(
        output.square().mean(), [inputs, *parameters], allow_unused=True
    )


_PARTS = {"block": _block, "network": _network}
