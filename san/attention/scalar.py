"""Attention by scalar products, as other self-attention networks have it.

Shape letters as in `block`.
"""

import gin
from torch import Tensor

from san.attention.block import CHANNELS_PER_WEIGHT, OUTPUT_RATIO, Attention
from san.attention.positions import AxialEmbedding
from san.attention.relations import DotProduct


@gin.configurable(module="san", denylist=["channels", "kernel_size"])
class ScalarAttention(Attention):
    """y_i = sum over the footprint of softmax(phi_i . (psi_j + r_ij)) * beta_j.

    The scalar attention that "Exploring Self-attention for Image Recognition",
    CVPR 2020, section 5.3, compares with: grouped dot products and learned
    positions in the style of "Stand-Alone Self-Attention in Vision Models",
    NeurIPS 2019, r1 = r2 = 4, no mapping, no scale. How many groups there are
    and what positions, no figure of the paper says: here channels_per_weight
    channels are a group, as everywhere in the paper, and r is a vector of the
    row beside one of the column.

    Args:
      channels: C of the image; a multiple of ratio * channels_per_weight.
      kernel_size: rows and columns of the footprint; odd.
      ratio: r1 and r2; phi, psi and beta have C / ratio channels.
      channels_per_weight: channels of a group, which share a weight; even.

    Raises:
      ValueError: if an argument is none of the above.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        ratio: int = OUTPUT_RATIO,
        channels_per_weight: int = CHANNELS_PER_WEIGHT,
    ) -> None:
        super().__init__(
            channels,
            kernel_size,
            lambda: DotProduct(self.weight_channels),
            {},
            "distinct",
            ratio,
            ratio,
            channels_per_weight,
        )
        if channels_per_weight % 2:
            raise ValueError(
                f"{type(self).__name__}: channels_per_weight must be even, "
                f"got {channels_per_weight}"
            )
        self.position = AxialEmbedding(
            self.out_channels, self.weight_channels, self.kernel_size
        )

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        return ["there is no fused operator of scalar attention"]

    def _weigh(self, phi: Tensor, psi: Tensor) -> Tensor:
        """The weights [N, G, K, P]; each footprint's add up to one."""
        scores = self._compare(phi, psi, self.num_taps)
        return (scores + self.position(phi)).softmax(dim=2)
