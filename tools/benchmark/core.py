"""Subcommand core: the attention core alone, fused, unfused and eager.

From phi, psi and beta to the output of the attention, at the sizes of SAN10's
five stages, float32; batch 8, on a GPU 64; inference and training (forward and
backward).
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import san
from tools.benchmark import backends, targets
from tools.benchmark.eager_network import CORES, draw_norms
from tools.benchmark.errors import largest_error, step_error
from tools.benchmark.measurement import Case, Contender, Entry, Settings
from tools.benchmark.operators import LAYERS, Layer

_KINDS = {
    "pair": ("pairwise", san.PairwiseAttention),
    "patch": ("patchwise", san.PatchwiseAttention),
}
_TARGET_THREADS = 2


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    return [
        Entry(work, functools.partial(_case, work, kind, mode, layer, settings))
        for kind, (word, _) in _KINDS.items()
        for mode in ("inference", "training")
        for layer in LAYERS
        for work in targets.layers(f"{word} core {mode}", (layer.number,))
    ]


class Given(nn.Module):
    """Stands where a 1x1 convolution was and gives what is set.

    With it in place of conv1, conv2 and conv3 an attention block is its core.

    Attributes:
      output: what it gives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gives the output, whatever the input."""
        return self.output


class Core(nn.Module):
    """The core of one of san's attention blocks."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        block.conv1, block.conv2, block.conv3 = (Given() for _ in range(3))
        self.block = block

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """What inputs_of gives to [N, M, H, W]."""
        block = self.block
        if len(images) == 1:
            return block.attend(*images)
        convs = block.conv1, block.conv2, block.conv3
        for conv, image in zip(convs, images, strict=True):
            conv.output = image
        # Of its input the block only asks size, type and device.
        return block(images[0])


def inputs_of(
    backend: str, images: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """phi, psi and beta as they come in a network.

    To a fused block as one tensor in channels-last, else as they are.
    """
    if backend != "fused":
        return list(images)
    joined = torch.cat(list(images), dim=1)
    return [joined.contiguous(memory_format=torch.channels_last)]


def make_pair(
    kind: str, channels: int, kernel_size: int, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """San's core and the eager one, with the same parameters."""
    torch.manual_seed(0)
    eager = CORES[kind](channels, kernel_size).to(device)
    draw_norms(eager)
    block = _KINDS[kind][1](channels, kernel_size).to(device)
    ours = Core(block)
    ours.block.load_state_dict(eager.state_dict())
    return ours, eager


def _case(
    work: str, kind: str, mode: str, layer: Layer, settings: Settings
) -> Case:
    channels = 4 * layer.channels
    ours, eager = make_pair(kind, channels, layer.kernel_size, settings.device)
    inputs = [
        torch.randn(
            (settings.batch, count, layer.size, layer.size),
            device=settings.device,
        )
        for count in (
            layer.relation_channels,
            layer.relation_channels,
            layer.channels,
        )
    ]
    run = _inference if mode == "inference" else training
    contenders = [
        Contender(
            backend,
            run(copy.deepcopy(ours), inputs_of(backend, inputs)),
            backends.chooser(backend),
        )
        for backend in backends.chosen(settings)
    ]
    peer = Contender("eager", run(eager, inputs))
    return Case(
        work=work,
        ours=contenders[0],
        peers=[*contenders[1:], peer, *peer.in_tf32(settings.device)],
        reference=_in_float64(run, copy.deepcopy(eager), inputs),
        # In training a few of 10**7 inputs of ReLUs flip; see step_error.
        tolerance=1e-4 if mode == "inference" else 1e-2,
        error=largest_error if mode == "inference" else step_error,
        threads=_TARGET_THREADS if mode == "inference" else None,
        skipped=backends.skipped(settings),
    )


def _inference(
    core: nn.Module, inputs: Sequence[torch.Tensor]
) -> Callable[[], torch.Tensor]:
    core.eval()

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return core(*inputs)

    return run


def training(
    core: nn.Module, inputs: Sequence[torch.Tensor]
) -> Callable[[], Sequence[torch.Tensor]]:
    """Forward and backward: the output and every gradient."""
    core.train()
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    leaves += core.parameters()
    generator = torch.Generator().manual_seed(0)
    batch, _, height, width = inputs[0].shape
    # Of C channels phi and psi have C / 16, beta has C / 4.
    relation = sum(image.shape[1] for image in inputs) // 6
    shape = (batch, 4 * relation, height, width)
    seed = torch.randn(shape, generator=generator).to(inputs[0])

    def run() -> Sequence[torch.Tensor]:
        output = core(*leaves[: len(inputs)])
        # The bias of conv_p cancels: a fused core need not use it.
        grads = torch.autograd.grad(
            output, leaves, seed, materialize_grads=True
        )
        if len(inputs) > 1:
            return [output.detach(), *grads]
        parts = grads[0].split([relation, relation, shape[1]], dim=1)
        return [output.detach(), *parts, *grads[1:]]

    return run


def _in_float64(
    run: Callable[..., Callable[[], Any]],
    eager: nn.Module,
    inputs: Sequence[torch.Tensor],
) -> Callable[[], Any]:
    return lambda: run(eager.double(), [t.double() for t in inputs])()
