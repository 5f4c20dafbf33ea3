"""The layers of a mapping by name: what gamma of both attentions is made of.

A mapping is a chain of BN, ReLU and 1x1 convolution, as often as it has
layers.
"""

from typing import Any, NamedTuple

from torch import nn

_LAYERS_PER_STEP = 3


class MappingLayers(NamedTuple):
    """What a mapping holds, each from the first to the last.

    Attributes:
      norms: the batch norms.
      activations: the ReLUs.
      matrices: the 1x1 convolutions.
    """

    norms: tuple[Any, ...]
    activations: tuple[Any, ...]
    matrices: tuple[Any, ...]


def mapping_layers(op: str, mapping: Any, num_layers: int) -> MappingLayers:
    """The layers of a mapping with so many matrices.

    Raises:
      ValueError: naming `op`, if the mapping is no chain of that length.
    """
    length = _LAYERS_PER_STEP * num_layers
    if not isinstance(mapping, nn.Sequential) or len(mapping) != length:
        got = type(mapping).__name__
        if isinstance(mapping, nn.Sequential):
            got += f" of {len(mapping)}"
        raise ValueError(
            f"{op}: mapping must be an nn.Sequential of {length} layers, "
            f"got {got}"
        )
    return layers_by_kind(mapping)


def layers_by_kind(mapping: nn.Sequential) -> MappingLayers:
    """The layers of a mapping of any length."""
    layers = list(mapping)
    return MappingLayers(
        *(tuple(layers[kind::_LAYERS_PER_STEP]) for kind in range(3))
    )
