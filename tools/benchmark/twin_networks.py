"""The networks of subcommand twin, and what they should give.

All have the same random weights each time, and norms that are not fresh.
"""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import san
from tools.benchmark.eager_network import draw_norms
from tools.benchmark.networks import (
    make_images,
    make_networks,
    training_step,
)

_CPU = torch.device("cpu")


def make(name: str) -> nn.Module:
    """One of san.list_models(), as the project builds it; in eval mode."""
    model, _ = _make(name)
    return model.eval()


@functools.cache
def logits(batch: int, name: str) -> Tensor:
    """The logits of a network, in float64.

    Of a SAN they come from the design in plain PyTorch, which shares nothing
    with ours.

    Args:
      batch: images, those of make_images.
      name: of the network.
    """
    _, plain = _make(name)
    plain = plain.double().eval()
    # One by one: the plain design needs hundreds of MB an image.
    images = make_images(batch, _CPU).double().split(1)
    with torch.inference_mode():
        return torch.cat([plain(image) for image in images])


@functools.cache
def logits_in_training(batch: int, name: str) -> Tensor:
    """The same by the statistics of the batch, as training does it.

    Args:
      batch: images.
      name: of the network.
    """
    _, plain = _make(name)
    with torch.no_grad():
        return plain.double().train()(make_images(batch, _CPU).double())


@functools.cache
def step(batch: int, name: str) -> Sequence[Tensor]:
    """The loss of a training step and all gradients by name, in float64.

    Args:
      batch: images.
      name: of the network.
    """
    _, plain = _make(name)
    images = make_images(batch, _CPU).double()
    check: Any = training_step("float64", plain.double(), images).check
    return check()


def _make(name: str) -> tuple[nn.Module, nn.Module]:
    """The network, and one of torch's own layers with the same parameters."""
    if name.startswith("san"):
        return make_networks(name, _CPU)
    torch.manual_seed(0)
    model = san.create_model(name)
    draw_norms(model)
    return model, copy.deepcopy(model)
