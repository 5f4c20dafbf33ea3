"""What a network attends to: the weights of its footprints, image by image."""

import contextlib
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from san.attention import Attention

_OP = "attention_weights"

_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)


class _ArrivedError(Exception):
    """The forward pass has come to the block; carries the block's input."""


def attention_blocks(model: nn.Module) -> dict[str, Attention]:
    """The attention blocks of a network by their module names, in order.

    Args:
      model: a SAN, or any network with blocks of san.attention.

    Returns:
      For SAN10 "layer0.0.sam", "layer0.1.sam", "layer1.0.sam" and so on; none
      for networks without, and for folded ones, whose blocks are constants.
      Those of wrappers are left out of the names: DataParallel,
      DistributedDataParallel, AveragedModel and torch.compile.
    """
    return {
        _without_compile(name): module
        for name, module in _unwrapped(model).named_modules()
        if isinstance(module, Attention)
    }


def attention_weights(model: nn.Module, images: Tensor, block: str) -> Tensor:
    """The weights with which a block sums each pixel's footprint, in eval mode.

    Runs the network as far as the block, module by module and uncompiled, with
    whatever hooks and replaced parts it has. Changes nothing in it: statistics,
    modes and gradients stay. Source: alpha of "Exploring Self-attention for
    Image Recognition", CVPR 2020, equations 2 and 4.

    Args:
      model: a SAN, or any network with blocks of san.attention, in either
        mode; not a folded one.
      images: [N, 3, H, W] on the device of the model.
      block: its name, as attention_blocks has it, with or without ".sam".

    Returns:
      [N, G, kernel_size, kernel_size, h, w]: the weight of each tap, rows
      first, of each of G groups of channels at each pixel of the block's own
      h x w image. Channel c of the block's output is in group c mod G. Those
      of pairwise attention add up to one over a footprint; those of patchwise
      attention have any sign and sum. Pixels beyond the border are mirrored.

    Raises:
      ValueError: if there is no such block, or the network does not run it.
    """
    model = _unwrapped(model)
    sam = _block(model, block)
    modes = [(module, module.training) for module in model.modules()]
    handle = sam.register_forward_pre_hook(_arrive)
    try:
        model.eval()
        with _uncompiled(), torch.no_grad():
            x = _input(model, images, block)
            weights = sam.weights(x)
    finally:
        handle.remove()
        for module, was_training in modes:
            module.training = was_training
    size = sam.kernel_size
    return weights.unflatten(-1, x.shape[2:]).unflatten(2, (size, size))


def _arrive(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _ArrivedError(inputs[0])


def _input(model: nn.Module, images: Tensor, block: str) -> Tensor:
    """What comes to the block whose hook is _arrive."""
    try:
        model(images)
    except _ArrivedError as arrived:
        return arrived.args[0]
    raise ValueError(
        f"{_OP}: block must be run by the network, got {block!r}, which is not"
    )


def _block(model: nn.Module, name: str) -> Attention:
    blocks = attention_blocks(model)
    plain = _without_compile(name)
    found = blocks.get(plain) or blocks.get(f"{plain}.sam")
    if found is not None:
        return found
    known = ", ".join(blocks) or "none: a folded network has constants"
    raise ValueError(
        f"{_OP}: block must be an attention block of the model, got {name!r}."
        f" Known: {known}"
    )


def _uncompiled() -> contextlib.AbstractContextManager[object]:
    """Has compiled code run as it was written: it would not see a hook."""
    # Where nothing is compiled, the import alone would take seconds.
    if "torch._dynamo" in sys.modules:
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


def _unwrapped(model: nn.Module) -> nn.Module:
    """A network without what is around it for training alone."""
    inner: Any = model
    while isinstance(inner, _WRAPPERS) or hasattr(inner, "_orig_mod"):
        inner = (
            inner.module if isinstance(inner, _WRAPPERS) else inner._orig_mod
        )
    return inner


def _without_compile(name: str) -> str:
    """The name of a module, as if no part had been given to torch.compile."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
