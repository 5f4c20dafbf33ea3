"""Attention whose weights compare a pixel with each of its neighbours.

Shape letters as in `block`.
"""

from typing import Any

import gin
import torch
from torch import Tensor, nn

from san import ops
from san.attention import fused
from san.attention.block import CHANNELS_PER_WEIGHT, OUTPUT_RATIO, Attention
from san.attention.choices import create_part
from san.attention.mappings import check_num_layers, create_mapping
from san.attention.positions import POSITIONS, Position
from san.attention.relations import PAIRWISE, Summation
from san.fusion import rule
from san.ops.positions import coordinates


@gin.configurable(module="san", denylist=["channels", "kernel_size"])
class PairwiseAttention(Attention):
    """y_i = sum over the footprint of softmax(gamma(delta_ij)) * beta(x_j).

    The relation delta_ij joins that of phi(x_i) and psi(x_j) and what is known
    of the two positions. Source: "Exploring Self-attention for Image
    Recognition", CVPR 2020, section 3.1; the choices are those of its tables
    4, 5, 6 and 8.

    Args:
      channels: C of the image; a multiple of r2 * channels_per_weight and of
        r1: of 32, as published.
      kernel_size: rows and columns of the footprint; odd.
      relation: "subtraction", "summation", "concatenation", "hadamard", "dot",
        or a Relation with K taps.
      num_layers: matrices of gamma: 1, 2 or 3.
      sharing: "distinct", "phi=psi", or "phi=psi=beta" for one transformation.
      position: "relative", "absolute", "none", or a Position.
      relation_ratio: r1; C / r1 channels are compared. None is 16, but r2
        where all transformations are one.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Raises:
      ValueError: if an argument is none of the above.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any = "subtraction",
        relation_ratio: int | None = None,
        output_ratio: int = OUTPUT_RATIO,
        channels_per_weight: int = CHANNELS_PER_WEIGHT,
        num_layers: int = 2,
        sharing: str = "distinct",
        position: Any = "relative",
    ) -> None:
        super().__init__(
            channels,
            kernel_size,
            relation,
            PAIRWISE,
            sharing,
            relation_ratio,
            output_ratio,
            channels_per_weight,
        )
        num_layers = check_num_layers(type(self).__name__, num_layers)
        self.position: Position | None = create_part(
            type(self).__name__, Position, position, POSITIONS
        )
        features = self.relation.channels(self.relation_channels, self.num_taps)
        if self.position is not None:
            self.conv_p = nn.Conv2d(2, self.position.channels, 1)
            features += self.position.channels
        hidden = [self.hidden_channels] * (num_layers - 1)
        self.conv_w = create_mapping((features, *hidden, self.weight_channels))

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        why = fused.why_not_pairwise(self, _METHODS, like)
        return [why] if why else []

    def attend(self, features: Tensor) -> Tensor:
        """Relation, mapping, softmax and aggregation as one."""
        if isinstance(self.relation, Summation):
            # phi + psi is phi - (-psi), to the bit.
            relation = self.relation_channels
            features.narrow(1, relation, relation).neg_()
        conv_p = None if self.position is None else self.conv_p
        return ops.pairwise_attention(
            features, conv_p, self.conv_w, self.kernel_size
        )

    def _weigh(self, phi: Tensor, psi: Tensor) -> Tensor:
        """The weights [N, G, K, P]; each footprint's add up to one."""
        relation = self._compare(phi, psi, self.num_taps)
        if self.position is not None:
            positions = self.position(
                self.conv_p(coordinates(phi)), self.kernel_size
            )
            positions = positions.expand(relation.shape[0], -1, -1, -1)
            relation = torch.cat([relation, positions], 1)
        return self.conv_w(relation).softmax(dim=2)


_METHODS = rule.methods_of(PairwiseAttention, *fused.METHODS)
