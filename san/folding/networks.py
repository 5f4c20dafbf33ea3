"""Folds every batch norm of a network into its peers.

Done is what is exact in real numbers and pays; the rest stays a norm:

- A norm after a convolution joins the convolution (ResNet).
- The norm of the first convolution joins it, and the pooling makes one layer
  of the three, so that no image of full size with many channels is ever there.
- bn2 of a bottleneck joins conv3. The weights of pairwise attention add up to
  one, so the shift joins too; patchwise attention adds it itself.
- The norms of a mapping join its matrices and its table of offsets.
- A bottleneck adds to its input in place, and the bias that it leaves out
  waits in the shifts of the norms that read the sum. This sum has several
  readers, so bn1 stays: as scale, shift and ReLU.

What is not exactly what is folded (a hook, another layer, a parametrization)
stays as it is, and a warning names it.
"""

import warnings
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from san.backend import use_attention_backend
from san.folding import rule
from san.folding.attention import Bottleneck
from san.folding.copying import detached_copy
from san.folding.layers import (
    Chain,
    Layers,
    Norm,
    Pointwise,
    Shift,
    Stem,
    affine,
    rows_of,
)
from san.fusion import groups
from san.networks import SAN
from san.ops.window import DTYPES

_OP = "fold_for_inference"


def fold_for_inference(
    model: nn.Module, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of a network that computes the same without batch norms.

    Args:
      model: a SAN or a ResNet, in either mode. It stays as it is.
      dtype: of the copy and of the images that it takes; None is that of the
        model. Its weights are rounded after they were folded. In bfloat16
        products are summed, and attention is computed, in float32.

    Returns:
      A module with the outputs of model.eval() up to rounding. It stays in
      eval mode; its weights are constants, to be changed in place or loaded,
      but not through `.data`, whose changes nobody counts: on the CPU copies
      of them are kept in another order. That of a SAN computes as the
      backend "fused" does whatever the chosen one is. Parts that people have
      changed, so that they are not exactly what can be folded, are in it as
      they were, hooks included; a warning says which and why.

    Raises:
      ValueError: if the model is neither, has a forward method or hooks of
        its own, or cannot be copied; or dtype is none that can be computed in.
    """
    if dtype is not None and dtype not in DTYPES:
        known = ", ".join(map(str, DTYPES))
        raise ValueError(f"{_OP}: dtype must be one of {known}, got {dtype!r}")
    why = rule.why_not_network(model)
    if why:
        raise ValueError(
            f"{_OP}: model must be a SAN of PairwiseAttention or "
            f"PatchwiseAttention or a ResNet, got {why}"
        )
    with torch.inference_mode(False), torch.no_grad():
        network = detached_copy(_OP, model).eval().requires_grad_(False)
        with use_attention_backend("fused"):
            fold = _San if isinstance(network, SAN) else _ResNet
            folding = fold(network)
        folded = _Folded(folding.folded.to(dtype=dtype))
    if folding.left:
        reasons = "; ".join(f"{k}: {v}" for k, v in folding.left.items())
        warnings.warn(f"{_OP}: left as it is: {reasons}", stacklevel=2)
    return folded


class _Folded(nn.Module):
    """A network that stays in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def train(self, mode: bool = True) -> "_Folded":
        if mode:
            raise RuntimeError(
                "fold_for_inference: a folded model must stay in eval mode, "
                "got train(True); train the model that it was made from"
            )
        return super().train(False)


class _Classifier(nn.Module):
    """The layers of a SAN, and its head as it was."""

    def __init__(
        self, layers: nn.Module, avgpool: nn.Module, fc: nn.Module
    ) -> None:
        super().__init__()
        self.layers, self.avgpool, self.fc = layers, avgpool, fc

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.layers(images)).flatten(1))


class _ResNet:
    """Joins each norm with the convolution before it."""

    def __init__(self, network: Any) -> None:
        self.left: dict[str, str] = {}
        self.folded = network
        for name, block in list(network.named_modules()):
            for conv, norm in rule.resnet_pairs(block):
                self._join(f"{name}." if name else "", block, conv, norm)

    def _join(self, prefix: str, block: Any, conv: str, norm: str) -> None:
        why = rule.why_not_pair(block, conv, norm)
        if why:
            self.left[f"{prefix}{norm}"] = why
            return
        owner, _, last = conv.rpartition(".")
        parent = block.get_submodule(owner)
        fused = fuse_conv_bn_eval(
            block.get_submodule(conv), block.get_submodule(norm)
        )
        setattr(parent, last, fused)
        setattr(parent, norm.rpartition(".")[2], nn.Identity())


class _San:
    """Makes the layers of a folded SAN one after the other."""

    def __init__(self, network: Any) -> None:
        self.left: dict[str, str] = {}
        self._network = network
        self._like = network.conv_in.weight
        self._layers: OrderedDict[str, nn.Module] = OrderedDict()
        # What the bottlenecks so far have not added.
        self._missing: Tensor | None = None
        self._fold_stem()
        for stage in range(network.num_stages):
            self._fold_transition(f"conv{stage}")
            self._fold_blocks(f"layer{stage}")
            is_last = stage == network.num_stages - 1
            self._fold_norm(f"bn{stage}", [] if is_last else ["pool"])
        self.folded = _Classifier(
            Layers(self._layers), network.avgpool, network.fc
        )

    def _add(self, name: str, layer: nn.Module) -> None:
        self._layers[name] = layer.to(self._like.dtype)

    def _leave(self, name: str, why: str, module: nn.Module) -> None:
        """Keeps a module as it is; it reads the whole sum."""
        self.left[name] = why
        if self._missing is not None:
            self._add(f"{name}_missing", Shift(self._missing))
            self._missing = None
        self._layers[name] = module

    def _leave_group(self, name: str, why: str, group: groups.Group) -> None:
        self._leave(name, why, Chain(group.modules))

    def _fold_stem(self) -> None:
        group = groups.Stem(self._network, "conv_in", "bn_in", "relu", "pool")
        conv, norm, *_ = group.modules
        why = rule.why_not_group(group, self._like, norm)
        if why:
            self._leave_group("stem", why, group)
            return
        scale, shift = affine(norm)
        self._add("stem", Stem(rows_of(conv) * scale[:, None], shift))

    def _fold_transition(self, name: str) -> None:
        group = groups.Pointwise(self._network, name)
        why = rule.why_not_group(group, self._like)
        if why:
            self._leave(name, why, group.modules[0])
            return
        conv = group.modules[0]
        bias = None if conv.bias is None else conv.bias.double()
        self._add(name, Pointwise(rows_of(conv), bias))

    def _fold_blocks(self, name: str) -> None:
        blocks = self._network.get_submodule(name)
        why = rule.why_not_chain(name, blocks)
        if why:
            self._leave(name, why, blocks)
            return
        for index, block in enumerate(blocks):
            why = rule.why_not_bottleneck(block, self._like)
            if why:
                self._leave(f"{name}_{index}", why, block)
                continue
            missing = self._missing
            if missing is None:
                missing = torch.zeros_like(block.bn1.running_mean).double()
            self._add(f"{name}_{index}", Bottleneck(block, missing))
            if block.conv.bias is not None:
                self._missing = missing + block.conv.bias

    def _fold_norm(self, name: str, pools: list[str]) -> None:
        group = groups.NormRelu(self._network, name, "relu", *pools)
        norm = group.modules[0]
        why = rule.why_not_group(group, self._like, norm)
        if why:
            self._leave_group(name, why, group)
            return
        scale, shift = affine(norm)
        if self._missing is not None:
            shift = shift + scale * self._missing
            self._missing = None
        self._add(name, Norm(scale, shift, 2 if pools else 1))
