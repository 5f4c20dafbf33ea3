"""What of a network is not fused, and why, for people to read."""

from typing import Any

from torch import Tensor, nn

from san.backend import FUSING, attention_backend
from san.fusion import rule


def why_unfused(model: nn.Module, images: Tensor | None = None) -> list[str]:
    """What a network computes by its modules one by one, and why.

    Args:
      model: a SAN, or anything that has attention blocks in it.
      images: what it would be given: dtype and device count. None for images
        that go with its weights.

    Returns:
      A line for each group of modules that no fused operator stands in for,
      such as "layer3.1: sam.conv1 has a forward hook"; empty if all is fused
      that can be. A single line if nothing is.

    Raises:
      ValueError: if an argument is none of the above.
    """
    for name, value, is_right in (
        ("model must be a module", model, isinstance(model, nn.Module)),
        ("images must be a tensor", images, isinstance(images, Tensor | None)),
    ):
        if not is_right:
            raise ValueError(f"why_unfused: {name}, got {type(value).__name__}")
    like = _like(model) if images is None else images
    if like is None:
        return []
    if why := rule.why_nothing(like):
        return [f"the whole network: {why}"] if _fusible(model) else []
    return [
        f"{name}: {why}" if name else why
        for name, module in _fusible(model)
        for why in module.why_unfused(like)
    ]


def reasons_of(module: Any) -> list[str]:
    """Why groups of a single module are not fused as it is now."""
    like = _like(module)
    return [] if like is None else module.why_unfused(like)


def describe_unfused(module: Any) -> str:
    """The same as a part of its repr; "" where another backend was chosen."""
    if attention_backend() not in FUSING:
        return ""
    unfused = reasons_of(module)
    return f"unfused: {'; '.join(dict.fromkeys(unfused))}" if unfused else ""


def _fusible(model: nn.Module) -> list[tuple[str, Any]]:
    """The modules that know of groups, by name."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "why_unfused")
    ]


def _like(module: nn.Module) -> Tensor | None:
    """What images that go with a module's weights are like."""
    return next(module.parameters(), None)
