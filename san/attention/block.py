"""What all attention blocks share: sizes, transformations, the weighted sum.

The blocks are in `pairwise`, `patchwise` and `scalar`, the operators under
them in `san.ops`, the networks around them in `san.networks`.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels, R relation channels, M value channels, G weight channels.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from san.attention import fused
from san.attention.choices import chosen_name, create_part
from san.attention.relations import Relation
from san.attention.window_ops import same_window, window_ops
from san.backend import FUSING, attention_backend
from san.fusion import Pointwise, describe_unfused, reasons_of

# As published, of both blocks.
RELATION_RATIO = 16
OUTPUT_RATIO = 4
CHANNELS_PER_WEIGHT = 8

# The convolutions that are phi, psi and beta.
SHARINGS = {
    "distinct": ("conv1", "conv2", "conv3"),
    "phi=psi": ("conv1", "conv1", "conv3"),
    "phi=psi=beta": ("conv1", "conv1", "conv1"),
}


class Attention(nn.Module):
    """What the blocks share.

    conv1, conv2 and conv3 are phi, psi and beta, conv_w is gamma; their names
    are those of the published checkpoints. What is shared or absent has none.

    Args:
      channels: C of the image.
      kernel_size: rows and columns of the footprint; odd.
      relation: how pixels are compared: a Relation, or a name of `known`.
      known: the relations that have names.
      sharing: a name of SHARINGS: which transformations are one.
      relation_ratio: r1; C / r1 channels are compared. None is 16, but r2
        where all transformations are one.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Attributes:
      transformations: names of the convolutions that are phi, psi and beta.
      hidden_channels: what a mapping is wide inside: R, but C / 16 where R
        is M.

    Raises:
      ValueError: if a size is none of the above, or R is not M where all
        transformations are one.
    """

    # Whether its relation compares tap by tap.
    is_by_tap = True

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any,
        known: Mapping[str, Callable[[], Relation]],
        sharing: str,
        relation_ratio: int | None,
        output_ratio: int,
        channels_per_weight: int,
    ) -> None:
        super().__init__()
        block = type(self).__name__
        sharing = chosen_name(block, "sharing", sharing, SHARINGS)
        self.transformations = SHARINGS[sharing]
        if relation_ratio is None:
            relation_ratio = output_ratio if self._is_one else RELATION_RATIO
        (
            channels,
            self.kernel_size,
            relation_ratio,
            output_ratio,
            channels_per_weight,
        ) = self._checked(
            channels=channels,
            kernel_size=kernel_size,
            relation_ratio=relation_ratio,
            output_ratio=output_ratio,
            channels_per_weight=channels_per_weight,
        )
        self.padding = self.kernel_size // 2
        self.num_taps = self.kernel_size * self.kernel_size
        self.relation_channels = channels // relation_ratio
        self.out_channels = channels // output_ratio
        self.weight_channels = self.out_channels // channels_per_weight
        self.hidden_channels = self.relation_channels
        if self._is_one:
            self.hidden_channels = max(channels // RELATION_RATIO, 1)
        made = self.relation_channels, self.relation_channels, self.out_channels
        for name in dict.fromkeys(self.transformations):
            outputs = made[self.transformations.index(name)]
            self.add_module(name, nn.Conv2d(channels, outputs, 1))
        self.relation = create_part(block, Relation, relation, known)
        if self.relation.is_by_tap not in (None, self.is_by_tap):
            needed = "tap by tap" if self.is_by_tap else "of whole footprints"
            raise ValueError(
                f"{block}: relation must be one {needed}, got "
                f"{type(self.relation).__name__}"
            )

    @property
    def _is_one(self) -> bool:
        """Whether one convolution is phi, psi and beta."""
        return len(set(self.transformations)) == 1

    def forward(self, x: Tensor) -> Tensor:
        """Maps an image [N, C, H, W] to [N, M, H, W]."""
        if self.why_unfused(x):
            return self._unfused(x)
        transform = Pointwise(self, *self.transformations)
        if not transform.why(x) and x.dim() == 4:
            return self._attended(transform(x))
        beta, phi, psi = self._all_transformed(x)
        if fused.why_not_features(self, phi, psi, beta):
            return self._sum(beta, self._weigh(phi, psi))
        return self._attended(torch.cat([phi, psi, beta], dim=1))

    def _attended(self, features: Tensor) -> Tensor:
        """What a hook may change in place; the backward pass may need it."""
        output = self.attend(features)
        return output.clone() if self._forward_hooks else output

    def weights(self, x: Tensor) -> Tensor:
        """The weights [N, G, K, P] that the footprint is summed with."""
        phi, psi, _ = self.transformations
        return self._weigh(*self._transformed(x, phi, psi))

    def attend(self, features: Tensor) -> Tensor:
        """From phi, psi and beta side by side to the output, fused.

        May write over them.
        """
        raise NotImplementedError

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        raise NotImplementedError

    def backend(self) -> str:
        """The name of the way in which it computes on its device."""
        chosen = attention_backend()
        if chosen not in FUSING:
            return chosen
        return "unfused" if reasons_of(self) else "fused"

    def extra_repr(self) -> str:
        """Footprint, and how images are computed."""
        why = describe_unfused(self)
        text = f"kernel_size={self.kernel_size}, backend={self.backend()}"
        return f"{text}, {why}" if why else text

    def _unfused(self, x: Tensor) -> Tensor:
        """The same, module by module."""
        if type(self).weights is not _WEIGHTS or "weights" in self.__dict__:
            beta = getattr(self, self.transformations[-1])
            return self._sum(beta(x), self.weights(x))
        beta, phi, psi = self._all_transformed(x)
        return self._sum(beta, self._weigh(phi, psi))

    def _all_transformed(self, x: Tensor) -> list[Tensor]:
        """Beta, phi and psi."""
        phi, psi, beta = self.transformations
        return self._transformed(x, beta, phi, psi)

    def _transformed(self, x: Tensor, *names: str) -> list[Tensor]:
        """What convolutions make; one that has several names, once."""
        made = {name: getattr(self, name)(x) for name in dict.fromkeys(names)}
        return [made[name] for name in names]

    def _weigh(self, phi: Tensor, psi: Tensor) -> Tensor:
        """The weights [N, G, K, P] from two images [N, R, H, W]."""
        raise NotImplementedError

    def _compare(self, phi: Tensor, psi: Tensor, places: int) -> Tensor:
        """The relation [N, D, places, P]."""
        relation = self.relation(phi, psi, self.kernel_size)
        channels = self.relation.channels(phi.shape[1], self.num_taps)
        got: Any = type(relation).__name__
        if isinstance(relation, Tensor):
            got = list(relation.shape)
            if len(got) == 4 and got[1:3] == [channels, places]:
                return relation
        raise ValueError(
            f"{type(self).__name__}: relation must be [N, {channels}, "
            f"{places}, P], as its channels() says, got {got} of "
            f"{type(self.relation).__name__}"
        )

    def _sum(self, beta: Tensor, weights: Tensor) -> Tensor:
        return window_ops().aggregation(
            beta, weights, **same_window(self.kernel_size)
        )

    def _checked(self, **sizes: Any) -> list[int]:
        block = type(self).__name__
        for name, value in sizes.items():
            sizes[name] = _integer(block, name, value)
        channels, kernel_size, relation_ratio, *others = sizes.values()
        if self._is_one and relation_ratio != others[0]:
            raise ValueError(
                f"{block}: relation_ratio must be output_ratio, {others[0]}, "
                "where one transformation is phi, psi and beta, "
                f"got {relation_ratio}"
            )
        multiple = math.lcm(relation_ratio, math.prod(others))
        if channels < 1 or channels % multiple:
            raise ValueError(
                f"{block}: channels must be a multiple of {multiple}, "
                f"got {channels}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"{block}: kernel_size must be a positive odd number, "
                f"got {kernel_size}"
            )
        return list(sizes.values())


_WEIGHTS = Attention.weights


def _integer(block: str, name: str, value: Any) -> int:
    is_ratio = name not in ("channels", "kernel_size")
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (is_ratio and number < 1):
        raise ValueError(
            f"{block}: {name} must be a positive integer, got {value!r}"
        )
    return number
