"""The ways in which PyTorch runs a network: eager, in a layout, compiled."""

import copy
from collections.abc import Callable

import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn

# Gives logits of images that it knows.
Run = Callable[[], Tensor]

_COMPILING = {"freezing": True, "compile_threads": 1, "fx_graph_cache": False}


def eager(
    model: nn.Module, images: Tensor, autocast: torch.dtype | None = None
) -> Run:
    """As it is.

    Args:
      model: in eval mode.
      images: that it is run on.
      autocast: computes in this where it may.
    """

    def run() -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", autocast, enabled=autocast is not None),
        ):
            return model(images)

    return run


def in_training(model: nn.Module, images: Tensor, autocast: torch.dtype) -> Run:
    """As a training step does it, without gradients.

    Args:
      model: in training mode.
      images: that it is run on.
      autocast: computes in this where it may.
    """

    def run() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", autocast):
            return model(images)

    return run


def in_channels_last(
    model: nn.Module, images: Tensor
) -> tuple[nn.Module, Tensor]:
    """A copy of the network and the images, both in channels-last."""
    layout = torch.channels_last
    model = copy.deepcopy(model).to(memory_format=layout)
    return model, images.contiguous(memory_format=layout)


def compiled(
    model: nn.Module,
    images: Tensor,
    threads: int,
    autocast: torch.dtype | None = None,
) -> Run:
    """Compiled by torch.compile, its weights frozen; now, not at its first run.

    Args:
      model: in eval mode.
      images: that it is run on, of whose shape it is made.
      threads: that it is made for: the number stands in the code. A run on
        another number is an error.
      autocast: computes in this where it may.

    Raises:
      RuntimeError: it was compiled, but the weights are no constants in it.
    """
    torch.set_num_threads(threads)
    network = torch.compile(model, fullgraph=True, dynamic=False)

    # Autocast as below: what it is, is part of what was compiled.
    def call() -> Tensor:
        with (
            torch.no_grad(),
            torch.autocast("cpu", autocast, enabled=autocast is not None),
        ):
            return network(images)

    counters = torch._dynamo.utils.counters
    counters.clear()
    # torch.compile(options={"freezing": True}) compiles, and freezes nothing.
    with torch._inductor.config.patch(**_COMPILING):
        call()
    if not counters["inductor"]["binary_folding_conv"]:
        raise RuntimeError(
            "benchmark: torch.compile must fold the norms of a network that is"
            " frozen into its convolutions, got a network with norms"
        )

    def run() -> Tensor:
        # Recompiled at a later call it would not be frozen.
        with torch.compiler.set_stance("fail_on_recompile"):
            return call()

    return run
