"""Gamma of both attentions: from the relation to the footprint's weights.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020, section
3.1; its table 5 compares depths.
"""

import itertools
from collections.abc import Sequence
from operator import index
from typing import Any

from torch import nn

from san.ops.mapping import layers_by_kind


class Mapping(nn.Sequential):
    """Batch norm, ReLU and 1x1 convolution, once for each layer.

    Made by `create_mapping`. Entries of the state dict are numbered as in the
    published checkpoints: norms 0, 3, ..., matrices 2, 5, ...
    """

    @property
    def norms(self) -> tuple[Any, ...]:
        """The batch norm before each matrix."""
        return layers_by_kind(self).norms

    @property
    def matrices(self) -> tuple[Any, ...]:
        """The 1x1 convolutions."""
        return layers_by_kind(self).matrices

    @property
    def num_layers(self) -> int:
        """How many matrices there are."""
        return len(self.matrices)


def check_num_layers(block: str, num_layers: Any) -> int:
    """Raises ValueError unless this is a depth of the paper's table 5."""
    try:
        number = 0 if isinstance(num_layers, bool) else index(num_layers)
    except TypeError:
        number = 0
    if number in (1, 2, 3):
        return number
    raise ValueError(
        f"{block}: num_layers must be 1, 2 or 3, got {num_layers!r}"
    )


def create_mapping(widths: Sequence[int]) -> Mapping:
    """Makes a mapping through so many channels, such as (18, 16, 8).

    Only the last matrix has a bias: that of any other would be taken away by
    the norm behind it.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        is_last = len(layers) == 3 * (len(widths) - 2)
        layers += [
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=is_last),
        ]
    return Mapping(*layers)
