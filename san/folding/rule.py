"""Why a part of a network is not exactly what folding makes of it, in words.

What may be folded is what may be fused, in eval mode and with norms whose
statistics are constants.
"""

from typing import Any

from torch import Tensor, nn

from san.fusion import Group
from san.fusion import rule as fusion_rule
from san.networks.resnet import ConvolutionBottleneck, ResNet
from san.networks.san import (
    BOTTLENECK_METHODS,
    SAN,
    SAN_METHODS,
    Bottleneck,
)
from san.norms import uses_batch

# The methods that say how a network or a block computes.
_METHODS: dict[type, dict[str, Any]] = {
    SAN: SAN_METHODS,
    Bottleneck: BOTTLENECK_METHODS,
    ResNet: fusion_rule.methods_of(ResNet),
    ConvolutionBottleneck: fusion_rule.methods_of(ConvolutionBottleneck),
}
# The convolutions that a norm follows, by the module that calls both.
_RESNET_PAIRS: dict[type, tuple[tuple[str, str], ...]] = {
    ResNet: (("conv1", "bn1"),),
    ConvolutionBottleneck: (
        ("conv1", "bn1"),
        ("conv2", "bn2"),
        ("conv3", "bn3"),
        ("downsample.0", "downsample.1"),
    ),
}


def why_not_network(model: nn.Module) -> str:
    """Why a network as a whole is none that can be folded."""
    for name, module in model.named_modules():
        if "_compiled_call_impl" in vars(module):
            return f"{name or 'one'} compiled by itself: fold it, then compile"
    for kind in (SAN, ResNet):
        if isinstance(model, kind):
            return fusion_rule.why_overridden(
                type(model).__name__, model, _METHODS[kind]
            ) or fusion_rule.why_hooked("the model", model)
    return type(model).__name__


def why_not_group(group: Group, like: Tensor, *norms: Any) -> str:
    """Why a group is not folded."""
    return group.why(like) or _why_not_constant(*norms)


def why_not_chain(name: str, blocks: Any) -> str:
    """Why the modules in a container are not folded one by one."""
    return fusion_rule.why_not_plain(name, blocks, (nn.Sequential,))


def why_not_bottleneck(block: Any, like: Tensor) -> str:
    """Why a bottleneck is not folded."""
    if not isinstance(block, Bottleneck):
        return f"it is a {type(block).__name__}"
    sam: Any = block.sam
    why = (
        fusion_rule.why_hooked("it", block)
        or "; ".join(block.why_unfused(like))
        or "; ".join(sam.why_unfused(like))
    )
    if why:
        return why
    return _why_not_constant(
        block.bn1, block.bn2, *sam.conv_w.norms
    ) or _why_not_finite(sam)


def resnet_pairs(block: Any) -> list[tuple[str, str]]:
    """Names of the convolutions and the norms behind them in a module."""
    for kind, pairs in _RESNET_PAIRS.items():
        if isinstance(block, kind):
            return [pair for pair in pairs if _has(block, *pair)]
    return []


def why_not_pair(block: Any, conv: str, norm: str) -> str:
    """Why a norm does not join the convolution before it."""
    kind = next(k for k in _RESNET_PAIRS if isinstance(block, k))
    why = fusion_rule.why_overridden(
        type(block).__name__, block, _METHODS[kind]
    )
    owner = conv.rpartition(".")[0]
    if owner and not why:
        why = why_not_chain(owner, block.get_submodule(owner))
    if why:
        return why
    layer, follower = block.get_submodule(conv), block.get_submodule(norm)
    return (
        fusion_rule.why_not_plain(conv, layer, (nn.Conv2d,))
        or fusion_rule.why_not_norm(norm, follower, layer.weight)
        or fusion_rule.why_not_channels(norm, follower, len(layer.weight))
        or _why_not_constant(follower)
    )


def _has(block: Any, *names: str) -> bool:
    found = {name for name, _ in block.named_modules()}
    return found.issuperset(names)


def _why_not_finite(sam: Any) -> str:
    """Why what the softmax does not see cannot be left out."""
    for name in ("conv_p.bias", "conv_w.5.bias"):
        bias = dict(sam.named_parameters()).get(name)
        if bias is not None and not bias.isfinite().all():
            return f"{name} is not finite"
    return ""


def _why_not_constant(*norms: Any) -> str:
    if any(uses_batch(norm) for norm in norms):
        return "a norm has no running statistics"
    return ""
