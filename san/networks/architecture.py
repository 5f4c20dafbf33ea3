"""What a network is made of, in plain values that a file can hold.

Weights do not say all of it: subtraction and summation, footprints of 3 and of
7 pixels have the same shapes.
"""

from typing import Any

from torch import nn

from san.attention.block import SHARINGS, Attention
from san.networks.resnet import ResNet
from san.networks.san import SAN


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """What decides how a SAN or a ResNet computes, but for its weights.

    Args:
      model: the network itself, not a wrapper of it.

    Returns:
      Texts, numbers and lists of them by name; None for other networks.
    """
    modules: Any = model
    if isinstance(model, SAN):
        stages = [
            list(model.get_submodule(f"layer{stage}").children())
            for stage in range(model.num_stages)
        ]
        blocks: Any = [block for stage in stages for block in stage]
        kinds = {
            name: sorted({text(block.sam) for block in blocks})
            for name, text in _CHOICES.items()
        }
        return {
            "network": type(model).__name__,
            "num_blocks": [len(stage) for stage in stages],
            "kernel_sizes": [_kernel_size(stage) for stage in stages],
            "widths": [
                modules.get_submodule(f"bn{stage}").num_features
                for stage in range(model.num_stages)
            ],
            # All blocks are alike, unless somebody has changed some of them.
            **{name: ", ".join(found) for name, found in kinds.items()},
            "in_channels": modules.conv_in.in_channels,
        }
    if isinstance(model, ResNet):
        layers = [modules.get_submodule(f"layer{n}") for n in range(1, 5)]
        return {
            "network": type(model).__name__,
            "num_blocks": [len(layer) for layer in layers],
            "kernel_sizes": [layer[0].conv2.kernel_size[0] for layer in layers],
            "widths": [layer[0].conv2.out_channels for layer in layers],
            "in_channels": modules.conv1.in_channels,
        }
    return None


def differences(saved: Any, model: nn.Module) -> str:
    """In what a model is made otherwise than a file says; "" if in nothing.

    Args:
      saved: what `architecture` gave, or anything that a file may have by
        that name.
      model: the network.
    """
    own = architecture(model)
    if not isinstance(saved, dict) or own is None:
        return ""
    return ", ".join(
        f"{name} {saved[name]} instead of {value}"
        for name, value in own.items()
        if name in saved and saved[name] != value
    )


def _kernel_size(blocks: list[Any]) -> int | None:
    """The footprint of a stage, if it has any."""
    return getattr(blocks[0].sam, "kernel_size", None) if blocks else None


def _sharing(sam: Any) -> str:
    if not isinstance(sam, Attention):
        return ""
    by_names = {names: sharing for sharing, names in SHARINGS.items()}
    return by_names.get(sam.transformations, str(sam.transformations))


def _part(name: str, sam: Any) -> str:
    part = getattr(sam, name, None)
    return "none" if part is None else type(part).__name__


_CHOICES = {
    "attention": lambda sam: type(sam).__name__,
    "relation": lambda sam: _part("relation", sam),
    "position": lambda sam: _part("position", sam),
    "sharing": _sharing,
}
