"""Runs of modules that one fused operator computes, where the rule allows it.

A group is made anew for each call, from the modules that its owner has then.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san import ops
from san.fusion import rule


class Group:
    """Some modules of an owner, by name, and the operator for them.

    Args:
      owner: the module that they belong to.
      names: where they are, relative to the owner.
    """

    def __init__(self, owner: nn.Module, *names: str) -> None:
        self.names = names
        self.modules: list[Any] = [_submodule(owner, name) for name in names]

    def why(self, like: Tensor) -> str:
        """Why the modules are called one by one, or "".

        Args:
          like: an image of the dtype and on the device of what comes in.
        """
        return rule.why_nothing(like) or self._why_modules(like)

    def __call__(self, x: Tensor) -> Tensor:
        """What the modules make of an image."""
        raise NotImplementedError

    def _why_modules(self, like: Tensor) -> str:
        raise NotImplementedError

    def _takes(self, x: Tensor) -> bool:
        """Whether an image goes through the fused operator."""
        return not self.why(x) and x.dim() == 4

    def _norm_relu(self, like: Tensor, norm: int = 0) -> str:
        """Why two modules are no batch norm with ReLU."""
        return rule.why_not_norm(
            self.names[norm], self.modules[norm], like
        ) or rule.why_not_relu(self.names[norm + 1], self.modules[norm + 1])


class Stem(Group):
    """1x1 convolution, batch norm, ReLU and pooling of the images."""

    def _why_modules(self, like: Tensor) -> str:
        conv, norm, _, pool = self.modules
        why = (
            rule.why_not_pointwise(self.names[0], conv, like)
            or self._norm_relu(like, 1)
            or rule.why_not_pool(self.names[3], pool)
        )
        if why:
            return why
        if conv._parameters["bias"] is not None:
            return f"{self.names[0]} has a bias"
        channels, _ = rule.channels_of(conv)
        return rule.why_not_channels(self.names[1], norm, channels)

    def __call__(self, images: Tensor) -> Tensor:
        """Maps [N, I, H, W] to [N, C, H // 2, W // 2]."""
        conv, norm, relu, pool = self.modules
        if (
            self._takes(images)
            and images.shape[1] == conv.weight.shape[1]
            and _can_pool(images)
        ):
            return ops.stem(images, conv, norm)
        return pool(relu(norm(conv(images))))


class NormRelu(Group):
    """Batch norm, ReLU and, if there is a third module, pooling."""

    def _why_modules(self, like: Tensor) -> str:
        why = self._norm_relu(like)
        if why or len(self.modules) == 2:
            return why
        return rule.why_not_pool(self.names[2], self.modules[2])

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to itself or to [N, C, H // 2, W // 2]."""
        norm, relu, *pools = self.modules
        if (
            self._takes(x)
            and x.shape[1] == norm.num_features
            and (not pools or _can_pool(x))
        ):
            return ops.norm_relu(x, norm, pool=2 if pools else 1)
        x = relu(norm(x))
        for pool in pools:
            x = pool(x)
        return x


class Pointwise(Group):
    """1x1 convolutions of one image, their outputs side by side."""

    def _why_modules(self, like: Tensor) -> str:
        return _why_not_pointwise(self.names, self.modules, like)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, sum of outputs, H, W]."""
        if self._takes(x) and x.shape[1] == self.modules[0].weight.shape[1]:
            return _pointwise(x, *_joined(self.modules))
        return _side_by_side(x, self.modules)


class NormReluLinear(Group):
    """Batch norm, ReLU and 1x1 convolutions, their outputs side by side.

    Args:
      owner: the module that they belong to.
      names: where they are, relative to the owner.
      pools: whether a pooling comes third, before the convolutions.
    """

    def __init__(
        self, owner: nn.Module, *names: str, pools: bool = False
    ) -> None:
        super().__init__(owner, *names)
        self._owner, self._pools = owner, pools
        self._first = 2 + pools  # of the convolutions

    def _why_modules(self, like: Tensor) -> str:
        names, modules, first = self.names, self.modules, self._first
        why = self._norm_relu(like)
        if not why and self._pools:
            why = rule.why_not_pool(names[2], modules[2])
        return (
            why
            or _why_not_pointwise(names[first:], modules[first:], like)
            or rule.why_not_channels(
                names[0], modules[0], rule.channels_of(modules[first])[1]
            )
        )

    def takes(self, x: Tensor) -> bool:
        """Whether an image goes through the fused operator."""
        return (
            self._takes(x)
            and x.shape[1] == self.modules[0].num_features
            and (not self._pools or _can_pool(x))
        )

    def fused(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Maps [N, C, H, W] to [N, O, H, W]; for images that it takes."""
        convs = self.modules[self._first :]
        return ops.norm_relu_linear(
            x,
            self.modules[0],
            [conv.weight for conv in convs],
            [_bias(conv) for conv in convs],
            residual=residual,
            pool=2 if self._pools else 1,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, O, H, W], pooled if it pools."""
        if self.takes(x):
            return self.fused(x)
        owner, names = self._owner, self.names
        x = NormRelu(owner, *names[: self._first])(x)
        return Pointwise(owner, *names[self._first :])(x)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """What it makes of x, added to [N, O, H, W]."""
        outputs = self.modules[-1]
        if self.takes(x) and _is_like(residual, x, len(outputs.weight)):
            return self.fused(x, residual)
        return residual + self(x)


def _submodule(owner: Any, name: str) -> Any:
    """Like owner.get_submodule(name), in a third of the time.

    And whatever else somebody has put in the place of a module.
    """
    for part in name.split("."):
        found = owner._modules.get(part)
        owner = getattr(owner, part) if found is None else found
    return owner


def _side_by_side(x: Tensor, modules: Sequence[Any]) -> Tensor:
    outputs = [module(x) for module in modules]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _joined(convs: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """The weights and the biases of 1x1 convolutions, one after the other."""
    if len(convs) == 1:
        return convs[0].weight, convs[0].bias
    return (
        torch.cat([conv.weight for conv in convs]),
        torch.cat([_bias(conv) for conv in convs]),
    )


def _bias(conv: Any) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(len(conv.weight))
    return conv.bias


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, bias)
    # The faster of the two in channels-last, above all backward.
    rows = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)
    return rows.permute(0, 3, 1, 2)


def _can_pool(x: Tensor) -> bool:
    return x.shape[2] >= 2 and x.shape[3] >= 2


def _is_like(residual: Any, x: Tensor, channels: int) -> bool:
    """Whether nothing is broadcast where it is added."""
    return (
        type(residual) is type(x)
        and residual.device == x.device
        and residual.dim() == 4
        and residual.shape[0] == x.shape[0]
        and residual.shape[1] == channels
        and residual.shape[2:] == x.shape[2:]
    )


def _why_not_pointwise(
    names: Sequence[str], convs: Sequence[Any], like: Tensor
) -> str:
    for name, conv in zip(names, convs, strict=True):
        why = rule.why_not_pointwise(name, conv, like)
        if why:
            return why
    inputs = [rule.channels_of(conv)[1] for conv in convs]
    if any(channels != inputs[0] for channels in inputs):
        return f"{', '.join(names)} take images of different channels"
    return ""
