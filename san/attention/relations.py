"""How pixels are compared: delta of both attentions.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020, sections
3.1 and 3.2; its table 4 compares what there is. A new relation is a class in
here, and a row of the table below if it is to have a name.

Shape letters: N batch, R channels of phi and psi, D of the relation, K taps of
the footprint, H W image, P = H * W pixels.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import gin
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.attention.window_ops import same_window, window_ops
from san.ops.window import mirrored


class Relation(nn.Module):
    """Compares phi of a pixel with psi of its footprint.

    Subclasses say what the comparison is. Those of PairwiseAttention give D
    channels for each tap, [N, D, K, P]; those of PatchwiseAttention give D
    channels for the whole footprint, [N, D, 1, P].
    """

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
class Subtraction(Relation):
    """phi_i - psi_j, tap by tap; of PairwiseAttention."""

    def channels(self, features: int, num_taps: int) -> int:
        """As many as phi has."""
        return features

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R, K, P]."""
        return window_ops().subtraction2(phi, psi, **same_window(kernel_size))


@gin.configurable(module="san")
class PatchConcatenation(Relation):
    """[phi_i, psi of all taps], channel by channel; of PatchwiseAttention."""

    def channels(self, features: int, num_taps: int) -> int:
        """Those of phi, and those of psi for each tap."""
        return features * (num_taps + 1)

    def forward(self, phi: Tensor, psi: Tensor, kernel_size: int) -> Tensor:
        """Maps two images [N, R, H, W] to [N, R * (K + 1), 1, P]."""
        patches = _patches(psi, kernel_size)
        return torch.cat([phi.flatten(2), patches], dim=1).unsqueeze(2)


PAIRWISE: dict[str, Callable[[], Relation]] = {"subtraction": Subtraction}
PATCHWISE: dict[str, Callable[[], Relation]] = {
    "concatenation": PatchConcatenation
}


def create_relation(
    block: str, relation: Any, known: Mapping[str, Callable[[], Relation]]
) -> Relation:
    """Makes a relation from its name or its class.

    Args:
      block: the attention block, for the error.
      relation: a name of `known`, or anything that makes a Relation.
      known: PAIRWISE or PATCHWISE.

    Raises:
      ValueError: if it is neither.
    """
    if isinstance(relation, nn.Module):
        raise ValueError(
            f"{block}: relation must be a name or a class, of which each block "
            f"makes its own, got a made {type(relation).__name__}"
        )
    make = relation if callable(relation) else known.get(str(relation))
    if make is None:
        (nearest,) = difflib.get_close_matches(str(relation), known, 1, 0)
        raise ValueError(
            f"{block}: relation must be one of {', '.join(known)} or a "
            f"Relation, got {relation!r}; the nearest is {nearest!r}"
        )
    made = make()
    if not isinstance(made, Relation):
        raise ValueError(
            f"{block}: relation must make a Relation, got {type(made).__name__}"
        )
    return made


def _patches(x: Tensor, kernel_size: int) -> Tensor:
    """Footprint of each pixel, channel by channel: [N, R * K, P].

    Unlike torch's own reflection padding this one takes images smaller than
    the footprint.
    """
    padding = kernel_size // 2
    for dim in (2, 3):
        size = x.shape[dim]
        places = torch.arange(-padding, size + padding, device=x.device)
        x = x.index_select(dim, mirrored(places, size))
    return F.unfold(x, kernel_size)
