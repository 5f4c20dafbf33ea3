"""Attention whose weights follow from the whole footprint at once.

Shape letters as in `block`.
"""

from typing import Any

import gin
from torch import Tensor

from san import ops
from san.attention import fused
from san.attention.block import (
    CHANNELS_PER_WEIGHT,
    OUTPUT_RATIO,
    SHARINGS,
    Attention,
)
from san.attention.mappings import check_num_layers, create_mapping
from san.attention.relations import PATCHWISE, Patch
from san.fusion import rule


@gin.configurable(module="san", denylist=["channels", "kernel_size"])
class PatchwiseAttention(Attention):
    """y_i = sum over the footprint of gamma(delta_i)_j * beta(x_j).

    The relation delta_i compares phi(x_i) with psi of the whole footprint,
    and gamma makes the weights of all its taps at once. Source: "Exploring
    Self-attention for Image Recognition", CVPR 2020, section 3.2; the choices
    are those of its tables 4, 5 and 6.

    Args:
      channels: C of the image; a multiple of r2 * channels_per_weight and of
        r1: of 32, as published.
      kernel_size: rows and columns of the footprint; odd.
      relation: "concatenation", "star", "clique", or a Relation of whole
        footprints. Where one transformation is phi and psi and beta, the
        concatenation leaves out phi_i, which is among the taps.
      num_layers: matrices of gamma: 1, 2 or 3.
      sharing: "distinct", "phi=psi", or "phi=psi=beta" for one transformation.
      position: "none": the order of the taps says where they lie.
      relation_ratio: r1; C / r1 channels are compared. None is 16, but r2
        where all transformations are one.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Raises:
      ValueError: if an argument is none of the above.
    """

    is_by_tap = False

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any = "concatenation",
        relation_ratio: int | None = None,
        output_ratio: int = OUTPUT_RATIO,
        channels_per_weight: int = CHANNELS_PER_WEIGHT,
        num_layers: int = 2,
        sharing: str = "distinct",
        position: str = "none",
    ) -> None:
        known = dict(PATCHWISE)
        if len(set(SHARINGS.get(str(sharing), ""))) == 1:
            known["concatenation"] = Patch
        super().__init__(
            channels,
            kernel_size,
            relation,
            known,
            sharing,
            relation_ratio,
            output_ratio,
            channels_per_weight,
        )
        num_layers = check_num_layers(type(self).__name__, num_layers)
        if not isinstance(position, str) or position != "none":
            raise ValueError(
                f"{type(self).__name__}: position must be 'none', since the "
                f"order of the taps says where they lie, got {position!r}"
            )
        features = self.relation.channels(self.relation_channels, self.num_taps)
        hidden = [self.weight_channels] * (num_layers > 1)
        if num_layers > 2:
            hidden.insert(0, self.hidden_channels)
        weights = self.weight_channels * self.num_taps
        self.conv_w = create_mapping((features, *hidden, weights))

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        why = fused.why_not_patchwise(self, _METHODS, like)
        return [why] if why else []

    def attend(self, features: Tensor) -> Tensor:
        """Relation, mapping and aggregation as one."""
        relation = self.relation_channels
        phi, psi, value = features.split(
            [relation, relation, self.out_channels], dim=1
        )
        return ops.patchwise_attention(
            phi, psi, value, self.conv_w, self.kernel_size
        )

    def _weigh(self, phi: Tensor, psi: Tensor) -> Tensor:
        """The weights [N, G, K, P], of any sign and sum."""
        relation = self._compare(phi, psi, 1)
        weights = self.conv_w(relation).squeeze(2)
        return weights.unflatten(1, (self.weight_channels, -1))


_METHODS = rule.methods_of(PatchwiseAttention, *fused.METHODS)
