"""The two attention blocks, composed of their named parts.

The operators under them are in `san.ops`, the networks around them in
`san.networks`.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels, R relation channels, M value channels, G weight channels.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import gin
import torch
from torch import Tensor, nn

from san import ops
from san.attention import fused
from san.attention.mappings import create_mapping
from san.attention.positions import RelativePosition
from san.attention.relations import (
    PAIRWISE,
    PATCHWISE,
    Relation,
    create_relation,
)
from san.attention.window_ops import same_window, window_ops
from san.backend import attention_backend
from san.fusion import Pointwise, describe_unfused, reasons_of, rule
from san.ops.positions import coordinates

# As published, of both blocks.
_RELATION_RATIO = 16
_OUTPUT_RATIO = 4
_CHANNELS_PER_WEIGHT = 8


class Attention(nn.Module):
    """What both blocks share: sizes, the three transformations, the sum.

    conv1, conv2 and conv3 are phi, psi and beta, conv_w is gamma; their names
    are those of the published checkpoints.

    Args:
      channels: C of the image.
      kernel_size: rows and columns of the footprint; odd.
      relation: how pixels are compared: a Relation, or a name of `known`.
      known: the relations that have names.
      relation_ratio: r1; C / r1 channels are compared.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Raises:
      ValueError: if a size is none of the above.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any,
        known: Mapping[str, Callable[[], Relation]],
        relation_ratio: int,
        output_ratio: int,
        channels_per_weight: int,
    ) -> None:
        super().__init__()
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
        self.conv1 = nn.Conv2d(channels, self.relation_channels, 1)
        self.conv2 = nn.Conv2d(channels, self.relation_channels, 1)
        self.conv3 = nn.Conv2d(channels, self.out_channels, 1)
        self.relation = create_relation(type(self).__name__, relation, known)

    def forward(self, x: Tensor) -> Tensor:
        """Maps an image [N, C, H, W] to [N, M, H, W]."""
        if self.why_unfused(x):
            return self._sum(self.conv3(x), self.weights(x))
        transform = Pointwise(self, *fused.TRANSFORMATIONS)
        if not transform.why(x) and x.dim() == 4:
            return self.attend(transform(x))
        beta, phi, psi = self.conv3(x), self.conv1(x), self.conv2(x)
        if fused.why_not_features(self, phi, psi, beta):
            return self._sum(beta, self._weigh(phi, psi))
        return self.attend(torch.cat([phi, psi, beta], dim=1))

    def weights(self, x: Tensor) -> Tensor:
        """The weights [N, G, K, P] that the footprint is summed with."""
        return self._weigh(self.conv1(x), self.conv2(x))

    def attend(self, features: Tensor) -> Tensor:
        """From phi, psi and beta side by side to the output, fused."""
        raise NotImplementedError

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        raise NotImplementedError

    def backend(self) -> str:
        """The name of the way in which it computes on its device."""
        chosen = attention_backend()
        return "unfused" if chosen == "fused" and reasons_of(self) else chosen

    def extra_repr(self) -> str:
        """Footprint, and how images are computed."""
        why = describe_unfused(self)
        text = f"kernel_size={self.kernel_size}, backend={self.backend()}"
        return f"{text}, {why}" if why else text

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


@gin.configurable(module="san", denylist=["channels", "kernel_size"])
class PairwiseAttention(Attention):
    """y_i = sum over the footprint of softmax(gamma(delta_ij)) * beta(x_j).

    The relation delta_ij joins that of phi(x_i) and psi(x_j) and the
    difference of the two positions. Source: "Exploring Self-attention for
    Image Recognition", CVPR 2020, section 3.1.

    Args:
      channels: C of the image; a multiple of r2 * channels_per_weight and of
        r1: of 32, as published.
      kernel_size: rows and columns of the footprint; odd.
      relation: "subtraction", or a Relation with K taps.
      relation_ratio: r1; C / r1 channels are compared.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Raises:
      ValueError: if a size is none of the above.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any = "subtraction",
        relation_ratio: int = _RELATION_RATIO,
        output_ratio: int = _OUTPUT_RATIO,
        channels_per_weight: int = _CHANNELS_PER_WEIGHT,
    ) -> None:
        super().__init__(
            channels,
            kernel_size,
            relation,
            PAIRWISE,
            relation_ratio,
            output_ratio,
            channels_per_weight,
        )
        self.position = RelativePosition()
        self.conv_p = nn.Conv2d(2, self.position.channels, 1)
        features = self.relation.channels(self.relation_channels, self.num_taps)
        self.conv_w = create_mapping(
            (
                features + self.position.channels,
                self.relation_channels,
                self.weight_channels,
            )
        )

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        why = fused.why_not_pairwise(self, _PAIRWISE_METHODS, like)
        return [why] if why else []

    def attend(self, features: Tensor) -> Tensor:
        """Relation, mapping, softmax and aggregation as one."""
        return ops.pairwise_attention(
            features, self.conv_p, self.conv_w, self.kernel_size
        )

    def _weigh(self, phi: Tensor, psi: Tensor) -> Tensor:
        """The weights [N, G, K, P]; each footprint's add up to one."""
        relation = self._compare(phi, psi, self.num_taps)
        positions = self.position(
            self.conv_p(coordinates(phi)), self.kernel_size
        )
        positions = positions.expand(relation.shape[0], -1, -1, -1)
        return self.conv_w(torch.cat([relation, positions], 1)).softmax(dim=2)


@gin.configurable(module="san", denylist=["channels", "kernel_size"])
class PatchwiseAttention(Attention):
    """y_i = sum over the footprint of gamma(delta_i)_j * beta(x_j).

    The relation delta_i compares phi(x_i) with psi of the whole footprint,
    and gamma makes the weights of all its taps at once. Source: "Exploring
    Self-attention for Image Recognition", CVPR 2020, section 3.2.

    Args:
      channels: C of the image; a multiple of r2 * channels_per_weight and of
        r1: of 32, as published.
      kernel_size: rows and columns of the footprint; odd.
      relation: "concatenation", or a Relation of whole footprints.
      relation_ratio: r1; C / r1 channels are compared.
      output_ratio: r2; the output has C / r2 channels.
      channels_per_weight: channels of the output that share a weight.

    Raises:
      ValueError: if a size is none of the above.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        relation: Any = "concatenation",
        relation_ratio: int = _RELATION_RATIO,
        output_ratio: int = _OUTPUT_RATIO,
        channels_per_weight: int = _CHANNELS_PER_WEIGHT,
    ) -> None:
        super().__init__(
            channels,
            kernel_size,
            relation,
            PATCHWISE,
            relation_ratio,
            output_ratio,
            channels_per_weight,
        )
        self.conv_w = create_mapping(
            (
                self.relation.channels(self.relation_channels, self.num_taps),
                self.weight_channels,
                self.weight_channels * self.num_taps,
            )
        )

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        why = fused.why_not_patchwise(self, _PATCHWISE_METHODS, like)
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


_PAIRWISE_METHODS = rule.methods_of(PairwiseAttention, *fused.METHODS)
_PATCHWISE_METHODS = rule.methods_of(PatchwiseAttention, *fused.METHODS)


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
