"""How pixels are compared: delta of both attentions.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020, sections
3.1 and 3.2; its table 4 compares what there is. A new relation is a class in
here, and a row of the table below if it is to have a name.

Shape letters: N batch, R channels of phi and psi, D of the relation, K taps of
the footprint, H W image, P = H * W pixels.
"""

from collections.abc import Callable

import gin
import torch
from torch import Tensor, nn

from san.attention.window_ops import (
    beside_taps,
    same_window,
    taps,
    window_ops,
)
from san.ops.window import check_tensor


class Relation(nn.Module):
    """Compares phi of a pixel with psi of its footprint.

    Subclasses say what the comparison is. Those of PairwiseAttention give D
    channels for each tap, [N, D, K, P]; those of PatchwiseAttention give D
    channels for the whole footprint, [N, D, 1, P].
    """

    # Which of the two; a block refuses the other at once. None: it is seen
    # when the relation is computed.
    is_by_tap: bool | None = None

    def channels(self, features: int, num_taps: int) -> int:
        """D for R features and K taps."""
        raise NotImplementedError(
            f"{type(self).__name__}: channels must say how many the relation "
            "has"
        )

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to the relation."""
        raise NotImplementedError(
            f"{type(self).__name__}: forward must compare phi and psi"
        )


@gin.configurable(module="san")
class Summation(Relation):
    """phi_i + psi_j, tap by tap; of PairwiseAttention."""

    is_by_tap = True

    def channels(self, features: int, num_taps: int) -> int:
        """As many as phi has."""
        return features

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R, K, P]."""
        return window_ops().subtraction2(phi, -psi, **same_window(kernel_size))


@gin.configurable(module="san")
class Subtraction(Relation):
    """phi_i - psi_j, tap by tap; of PairwiseAttention."""

    is_by_tap = True

    def channels(self, features: int, num_taps: int) -> int:
        """As many as phi has."""
        return features

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R, K, P]."""
        return window_ops().subtraction2(phi, psi, **same_window(kernel_size))


@gin.configurable(module="san")
class Concatenation(Relation):
    """[phi_i, psi_j], tap by tap; of PairwiseAttention."""

    is_by_tap = True

    def channels(self, features: int, num_taps: int) -> int:
        """Those of phi and those of psi."""
        return 2 * features

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, 2 * R, K, P]."""
        return beside_taps(phi, psi, kernel_size)


@gin.configurable(module="san")
class HadamardProduct(Relation):
    """phi_i * psi_j, channel by channel at each tap; of PairwiseAttention."""

    is_by_tap = True

    def channels(self, features: int, num_taps: int) -> int:
        """As many as phi has."""
        return features

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R, K, P]."""
        return _products(phi, psi, phi.shape[1], kernel_size)


@gin.configurable(module="san", denylist=["num_groups"])
class DotProduct(Relation):
    """The scalar product of phi_i and psi_j, at each tap.

    Of PairwiseAttention, where one scalar compares whole vectors ("the
    dimensionality is 1", section 3.1), without a scale: a norm follows.

    Args:
      num_groups: products; channel c is in product c mod num_groups.
    """

    is_by_tap = True

    def __init__(self, num_groups: int = 1) -> None:
        super().__init__()
        self.num_groups = num_groups

    def channels(self, features: int, num_taps: int) -> int:
        """One for each group."""
        if self.num_groups < 1 or features % self.num_groups:
            raise ValueError(
                "DotProduct: num_groups must divide the channels of phi, "
                f"{features}, got {self.num_groups}"
            )
        return self.num_groups

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, num_groups, K, P]."""
        return _products(phi, psi, self.num_groups, kernel_size)


@gin.configurable(module="san")
class StarProduct(Relation):
    """The scalar products of phi_i and psi of each tap; of PatchwiseAttention.

    Channel t is that of tap t.
    """

    is_by_tap = False

    def channels(self, features: int, num_taps: int) -> int:
        """One for each tap."""
        return num_taps

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, K, 1, P]."""
        return _products(phi, psi, 1, kernel_size).transpose(1, 2)


@gin.configurable(module="san")
class CliqueProduct(Relation):
    """The scalar products of phi and psi of all pairs of taps.

    Of PatchwiseAttention. Channel j * K + t is that of phi at tap j and psi at
    tap t, both in the footprint of pixel i: all ordered pairs, those of a tap
    with itself among them.

    Memory: the relation has K**2 values for each pixel, 2401 for a footprint
    of 7: 30 MB of float32 for an image of 56 x 56 pixels. For its gradients
    2 * R * K more are kept.
    """

    is_by_tap = False

    def channels(self, features: int, num_taps: int) -> int:
        """One for each pair of taps."""
        return num_taps**2

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, K * K, 1, P]."""
        check_tensor("correlation", "phi", phi)
        batch, features, height, width = phi.shape
        num_taps = kernel_size**2
        # Phi at each tap as an image of its own, beside the same psi.
        image = features, height, width
        around = taps(phi, kernel_size).transpose(1, 2).reshape(-1, *image)
        again = psi.unsqueeze(1).expand(-1, num_taps, -1, -1, -1)
        pairs = _products(around, again.reshape(-1, *image), 1, kernel_size)
        return pairs.view(batch, num_taps**2, 1, height * width)


@gin.configurable(module="san")
class PatchConcatenation(Relation):
    """[phi_i, psi of all taps], channel by channel; of PatchwiseAttention."""

    is_by_tap = False

    def channels(self, features: int, num_taps: int) -> int:
        """Those of phi, and those of psi for each tap."""
        return features * (num_taps + 1)

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R * (K + 1), 1, P]."""
        patches = taps(psi, kernel_size).flatten(1, 2)
        return torch.cat([phi.flatten(2), patches], dim=1).unsqueeze(2)


@gin.configurable(module="san")
class Patch(Relation):
    """Psi of all taps, channel by channel; of PatchwiseAttention.

    What PatchConcatenation is where phi and psi are one: phi_i is among the
    taps.
    """

    is_by_tap = False

    def channels(self, features: int, num_taps: int) -> int:
        """Those of psi for each tap."""
        return features * num_taps

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R * K, 1, P]."""
        return taps(psi, kernel_size).flatten(1, 2).unsqueeze(2)


PAIRWISE: dict[str, Callable[[], Relation]] = {
    "summation": Summation,
    "subtraction": Subtraction,
    "concatenation": Concatenation,
    "hadamard": HadamardProduct,
    "dot": DotProduct,
}
PATCHWISE: dict[str, Callable[[], Relation]] = {
    "star": StarProduct,
    "clique": CliqueProduct,
    "concatenation": PatchConcatenation,
}


def _products(
    phi: Tensor, psi: Tensor, num_groups: int, kernel_size: int
) -> Tensor:
    """Of phi_i and psi_j, summed over groups of channels: [N, groups, K, P]."""
    return window_ops().correlation(
        phi, psi, num_groups, **same_window(kernel_size)
    )
