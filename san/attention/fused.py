"""Where one fused operator computes a whole attention, and why elsewhere not.

The groups around an attention block are in `san.fusion`; here are the rules
for what lies between the transformations and the sum: relation, position,
mapping and aggregation.
"""

from typing import Any

from torch import Tensor, nn

from san.attention import faster
from san.attention.mappings import Mapping
from san.attention.positions import RelativePosition
from san.attention.relations import (
    PatchConcatenation,
    Subtraction,
    Summation,
)
from san.fusion import rule
from san.ops.pairwise_attention import fits_pairwise
from san.ops.patchwise_core import LARGEST_FOOTPRINT

# What decides what a block computes.
METHODS = (
    "weights",
    "attend",
    "_unfused",
    "_all_transformed",
    "_transformed",
    "_weigh",
    "_compare",
    "_sum",
)
_PARTS = {
    kind: rule.methods_of(kind)
    for kind in (
        Mapping,
        PatchConcatenation,
        RelativePosition,
        Subtraction,
        Summation,
    )
}


def why_not_pairwise(block: Any, methods: dict[str, Any], like: Tensor) -> str:
    """Why a PairwiseAttention is not what ops.pairwise_attention computes."""
    parts = block._modules
    why = (
        rule.why_nothing(like)
        or rule.why_overridden(type(block).__name__, block, methods)
        or _why_not_outputs(block)
        or _why_not_part(
            "relation", parts.get("relation"), Subtraction, Summation
        )
        or _why_not_position(block, like)
        or _why_not_mapping(parts.get("conv_w"), like)
    )
    if why:
        return why
    relation, weights = block.relation_channels, block.weight_channels
    features = relation if block.position is None else relation + 2
    why = _why_not_sizes(parts["conv_w"], (features, relation, weights))
    if not why and not fits_pairwise(
        like.device,
        relation,
        weights,
        block.out_channels,
        block.kernel_size,
    ):
        why = f"the fused operator has no room for its sizes on {like.device}"
    return why or faster.why_unfused("pairwise", block, like)


def why_not_patchwise(block: Any, methods: dict[str, Any], like: Tensor) -> str:
    """Why a PatchwiseAttention is not what ops.patchwise_attention computes."""
    parts = block._modules
    why = (
        rule.why_nothing(like)
        or rule.why_overridden(type(block).__name__, block, methods)
        or _why_not_outputs(block)
        or _why_not_part("relation", parts.get("relation"), PatchConcatenation)
        or _why_not_mapping(parts.get("conv_w"), like)
    )
    if why:
        return why
    relation, weights = block.relation_channels, block.weight_channels
    num_taps = block.kernel_size**2
    widths = relation * (num_taps + 1), weights, weights * num_taps
    mapping = parts["conv_w"]
    why = _why_not_sizes(mapping, widths)
    if not why and mapping._modules["5"]._parameters["bias"] is None:
        why = "conv_w.5 has no bias"
    if not why and block.kernel_size > LARGEST_FOOTPRINT:
        why = (
            "the fused operator has no room for footprints above "
            f"{LARGEST_FOOTPRINT}"
        )
    return why or faster.why_unfused("patchwise", block, like)


def why_not_features(block: Any, *features: Tensor) -> str:
    """Why phi, psi and beta, which modules made, do not go on as one."""
    channels = block.relation_channels, block.relation_channels
    phi = features[0]
    for feature, expected in zip(
        features, (*channels, block.out_channels), strict=True
    ):
        if type(feature) is not type(phi) or feature.dim() != 4:
            return "a transformation does not make an image"
        why = rule.why_nothing(feature)
        if why:
            return why
        if (
            feature.shape[1] != expected
            or feature.shape[0] != phi.shape[0]
            or feature.shape[2:] != phi.shape[2:]
            or feature.dtype != phi.dtype
            or feature.device != phi.device
        ):
            return "the transformations do not make images of one kind"
    return ""


def _why_not_position(block: Any, like: Tensor) -> str:
    if block.position is None:
        return ""
    parts = block._modules
    why = _why_not_part(
        "position", parts.get("position"), RelativePosition
    ) or rule.why_not_pointwise("conv_p", parts.get("conv_p"), like)
    if not why and rule.channels_of(parts["conv_p"]) != (2, 2):
        why = "conv_p does not map 2 channels to 2"
    return why


def _why_not_part(name: str, module: Any, *kinds: type) -> str:
    """Why a part without parameters is not what the operator computes."""
    kind = type(module)
    if kind not in kinds:
        return f"{name} is a {kind.__name__}, not a {kinds[0].__name__}"
    return rule.why_hooked(name, module) or rule.why_overridden(
        name, module, _PARTS[kind]
    )


def _why_not_outputs(block: Any) -> str:
    """Why the transformations make other channels than the block was made for.

    Of those that are not torch's own convolutions it is seen when they have
    made them.
    """
    relation = block.relation_channels
    for name, channels in zip(
        block.transformations,
        (relation, relation, block.out_channels),
        strict=True,
    ):
        conv = block._modules.get(name)
        if type(conv) is not nn.Conv2d or "weight" not in conv._parameters:
            continue
        made, _ = rule.channels_of(conv)
        if made != channels:
            return f"{name} makes {made} channels"
    return ""


def _why_not_mapping(mapping: Any, like: Tensor) -> str:
    """Why conv_w is no chain of two layers that the operators know."""
    why = _why_not_part("conv_w", mapping, Mapping)
    if why:
        return why
    layers = mapping._modules
    if tuple(layers) != ("0", "1", "2", "3", "4", "5"):
        return "conv_w is not a mapping of two layers"
    why = (
        rule.why_not_norm("conv_w.0", layers["0"], like)
        or rule.why_not_relu("conv_w.1", layers["1"])
        or rule.why_not_pointwise("conv_w.2", layers["2"], like)
        or rule.why_not_norm("conv_w.3", layers["3"], like)
        or rule.why_not_relu("conv_w.4", layers["4"])
        or rule.why_not_pointwise("conv_w.5", layers["5"], like)
    )
    if why:
        return why
    if layers["2"]._parameters["bias"] is not None:
        return "conv_w.2 has a bias"
    return ""


def _why_not_sizes(mapping: nn.Module, widths: tuple[int, ...]) -> str:
    """Why the layers of a mapping do not have so many channels."""
    layers: Any = mapping._modules
    for step, (norm, matrix) in enumerate((("0", "2"), ("3", "5"))):
        inputs, outputs = widths[step], widths[step + 1]
        if layers[norm].num_features != inputs or (
            rule.channels_of(layers[matrix]) != (outputs, inputs)
        ):
            return f"layer {step + 1} of conv_w has other channels"
    return ""
