"""Where one fused operator computes a whole attention, and why elsewhere not.

The groups around an attention block are in `san.fusion`; here are the rules
for what lies between the transformations and the sum: relation, position,
mapping and aggregation.
"""

from typing import Any

from torch import Tensor, nn

from san.attention.mappings import Mapping
from san.attention.positions import RelativePosition
from san.attention.relations import PatchConcatenation, Subtraction
from san.fusion import rule
from san.ops.mapping import layers_by_kind
from san.ops.pairwise_attention import fits_pairwise
from san.ops.patchwise_core import LARGEST_FOOTPRINT

# The 1x1 convolutions in the order in which the fused operators take them.
TRANSFORMATIONS = ("conv1", "conv2", "conv3")
# What a subclass can change of a block.
_METHODS = ("forward", "weights", "attend", "_weigh", "_sum")


def why_not_pairwise(block: Any, kind: type, like: Tensor) -> str:
    """Why a PairwiseAttention is not what ops.pairwise_attention computes."""
    why = (
        rule.why_nothing(like)
        or rule.why_overridden(block, kind, _METHODS)
        or _why_not_part("relation", block.relation, Subtraction)
        or _why_not_part("position", block.position, RelativePosition)
        or rule.why_not_pointwise("conv_p", block.conv_p, like)
        or _why_not_mapping(block.conv_w, like)
    )
    if why:
        return why
    relation, weights = block.relation_channels, block.weight_channels
    if tuple(block.conv_p.weight.shape) != (2, 2, 1, 1):
        return "conv_p does not map 2 channels to 2"
    why = _why_not_sizes(block.conv_w, (relation + 2, relation, weights))
    if not why and not fits_pairwise(
        like.device,
        relation,
        weights,
        block.out_channels,
        block.kernel_size,
    ):
        why = f"the fused operator has no room for its sizes on {like.device}"
    return why


def why_not_patchwise(block: Any, kind: type, like: Tensor) -> str:
    """Why a PatchwiseAttention is not what ops.patchwise_attention computes."""
    why = (
        rule.why_nothing(like)
        or rule.why_overridden(block, kind, _METHODS)
        or _why_not_part("relation", block.relation, PatchConcatenation)
        or _why_not_mapping(block.conv_w, like)
    )
    if why:
        return why
    relation, weights = block.relation_channels, block.weight_channels
    num_taps = block.kernel_size**2
    widths = relation * (num_taps + 1), weights, weights * num_taps
    why = _why_not_sizes(block.conv_w, widths)
    if not why and block.conv_w[5].bias is None:
        why = "conv_w.5 has no bias"
    if not why and block.kernel_size > LARGEST_FOOTPRINT:
        why = (
            "the fused operator has no room for footprints above "
            f"{LARGEST_FOOTPRINT}"
        )
    return why


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


def _why_not_part(name: str, module: Any, kind: type) -> str:
    """Why a part without parameters is not what the operator computes."""
    if type(module) is not kind:
        return f"{name} is a {type(module).__name__}, not a {kind.__name__}"
    return rule.why_hooked(name, module) or rule.why_replaced(name, module)


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
    if layers["2"].bias is not None:
        return "conv_w.2 has a bias"
    return ""


def _why_not_sizes(mapping: nn.Sequential, widths: tuple[int, ...]) -> str:
    """Why the layers of a mapping do not have so many channels."""
    norms, _, matrices = layers_by_kind(mapping)
    for step, (norm, matrix) in enumerate(zip(norms, matrices, strict=True)):
        inputs, outputs = widths[step], widths[step + 1]
        if norm.num_features != inputs or tuple(matrix.weight.shape[:2]) != (
            outputs,
            inputs,
        ):
            return f"layer {step + 1} of conv_w has other channels"
    return ""
