"""The two attention blocks: pairwise and patchwise.

The operators under them are in `san.ops`, the networks around them in
`san.networks`.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels, R relation channels, G weight channels.
"""

from typing import Any

import gin
import torch
from torch import nn
from torch.nn import functional as F

from san import ops
from san.backend import attention_backend, runs_fused
from san.ops import reference
from san.ops.pairwise_attention import fits_pairwise
from san.ops.patchwise_core import LARGEST_FOOTPRINT
from san.ops.window import mirrored

_CHANNELS_PER_RELATION = 16
_CHANNELS_PER_OUTPUT = 4
_OUTPUTS_PER_WEIGHT = 8


class Attention(nn.Module):
    """What both blocks share: the sizes and the three transformations."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        _check_sizes(type(self).__name__, channels, kernel_size)
        self.kernel_size = kernel_size
        self.padding = kernel_size // 2
        self.relation_channels = channels // _CHANNELS_PER_RELATION
        self.out_channels = channels // _CHANNELS_PER_OUTPUT
        self.weight_channels = self.out_channels // _OUTPUTS_PER_WEIGHT
        self.conv1 = nn.Conv2d(channels, self.relation_channels, 1)
        self.conv2 = nn.Conv2d(channels, self.relation_channels, 1)
        self.conv3 = nn.Conv2d(channels, self.out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps an image [N, C, H, W] to [N, C / 4, H, W]."""
        if self.runs_fused(x):
            weights, biases = map(torch.cat, self.transformations())
            return self.attend(_linear(x, weights, biases))
        return _ops().aggregation(
            self.conv3(x),
            self.weights(x),
            self.kernel_size,
            padding=self.padding,
        )

    def runs_fused(self, x: torch.Tensor) -> bool:
        """Whether an image is computed by the fused operators."""
        return runs_fused(x) and self.fits_fused(x.device)

    def fits_fused(self, device: torch.device) -> bool:
        """Whether the fused operators take this block's sizes on a device."""
        return True

    def backend(self) -> str:
        """The name of the way in which it computes on its device."""
        chosen = attention_backend()
        is_fused = self.runs_fused(self.conv1.weight)
        return "unfused" if chosen == "fused" and not is_fused else chosen

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """The weights [N, G, K, P] that the footprint is summed with."""
        raise NotImplementedError

    def transformations(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The weights and the biases of phi, psi and beta."""
        convs: tuple[Any, ...] = self.conv1, self.conv2, self.conv3
        return [conv.weight for conv in convs], [conv.bias for conv in convs]

    def attend(self, features: torch.Tensor) -> torch.Tensor:
        """From the transformations' output to that of forward, fused."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Footprint, and how images are computed."""
        return f"kernel_size={self.kernel_size}, backend={self.backend()}"


@gin.configurable(module="san")
class PairwiseAttention(Attention):
    """y_i = sum over the footprint of softmax(gamma(delta_ij)) * beta(x_j).

    The relation delta_ij joins phi(x_i) - psi(x_j) and the difference of the
    two positions. conv1, conv2 and conv3 are phi, psi and beta, conv_w is
    gamma. Source: "Exploring Self-attention for Image Recognition", CVPR
    2020, section 3.1.

    Args:
      channels: C of the image; a multiple of 32. The output has C / 4.
      kernel_size: rows and columns of the footprint; odd.

    Raises:
      ValueError: if a size is none of the above.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, kernel_size)
        relation = self.relation_channels
        self.conv_p = nn.Conv2d(2, 2, 1)
        self.conv_w = _mapping(relation + 2, relation, self.weight_channels)

    def fits_fused(self, device: torch.device) -> bool:
        """Whether the fused operators take this block's sizes on a device."""
        return fits_pairwise(
            device,
            self.relation_channels,
            self.weight_channels,
            self.out_channels,
            self.kernel_size,
        )

    def attend(self, features: torch.Tensor) -> torch.Tensor:
        """Relation, mapping, softmax and aggregation as one."""
        return ops.pairwise_attention(
            features, self.conv_p, self.conv_w, self.kernel_size
        )

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """The weights [N, G, K, P]; each footprint's add up to one."""
        size, padding = self.kernel_size, self.padding
        features = _ops().subtraction2(
            self.conv1(x), self.conv2(x), size, padding=padding
        )
        positions = (
            _ops()
            .subtraction(self.conv_p(_positions(x)), size, padding=padding)
            .expand(x.shape[0], -1, -1, -1)
        )
        relation = torch.cat([features, positions], dim=1)
        return self.conv_w(relation).softmax(dim=2)


@gin.configurable(module="san")
class PatchwiseAttention(Attention):
    """y_i = sum over the footprint of gamma(delta_i)_j * beta(x_j).

    The relation delta_i joins phi(x_i) and psi of the whole footprint, and
    gamma makes the weights of all its taps at once. conv1, conv2 and conv3
    are phi, psi and beta, conv_w is gamma. Source: "Exploring Self-attention
    for Image Recognition", CVPR 2020, section 3.2.

    Args:
      channels: C of the image; a multiple of 32. The output has C / 4.
      kernel_size: rows and columns of the footprint; odd.

    Raises:
      ValueError: if a size is none of the above.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, kernel_size)
        num_taps = kernel_size * kernel_size
        self.conv_w = _mapping(
            self.relation_channels * (num_taps + 1),
            self.weight_channels,
            self.weight_channels * num_taps,
        )

    def fits_fused(self, device: torch.device) -> bool:
        """Whether the fused operators take this block's sizes on a device."""
        return self.kernel_size <= LARGEST_FOOTPRINT

    def attend(self, features: torch.Tensor) -> torch.Tensor:
        """Relation, mapping and aggregation as one."""
        relation = self.relation_channels
        phi, psi, value = features.split(
            [relation, relation, self.out_channels], dim=1
        )
        return ops.patchwise_attention(
            phi, psi, value, self.conv_w, self.kernel_size
        )

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """The weights [N, G, K, P], of any sign and sum."""
        centre = self.conv1(x).flatten(2)
        patches = _patches(self.conv2(x), self.kernel_size, self.padding)
        relation = torch.cat([centre, patches], dim=1).unsqueeze(2)
        weights = self.conv_w(relation).squeeze(2)
        return weights.unflatten(1, (self.weight_channels, -1))


def _ops() -> Any:
    """The module with aggregation, subtraction and subtraction2."""
    return reference if attention_backend() == "reference" else ops


def _check_sizes(block: str, channels: int, kernel_size: int) -> None:
    multiple = _CHANNELS_PER_OUTPUT * _OUTPUTS_PER_WEIGHT
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


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """A 1x1 convolution."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, bias)
    # The faster of the two in channels-last, above all backward.
    rows = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)
    return rows.permute(0, 3, 1, 2)


def _mapping(relation: int, hidden: int, weights: int) -> nn.Sequential:
    """Gamma: from the relation to the weights of the footprint."""
    return nn.Sequential(
        nn.BatchNorm2d(relation),
        nn.ReLU(),
        nn.Conv2d(relation, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, weights, 1),
    )


def _positions(x: torch.Tensor) -> torch.Tensor:
    """Column and row of each pixel, from -1 to 1: [1, 2, H, W]."""
    height, width = x.shape[2:]
    columns = _coordinates(x, width).expand(height, -1)
    rows = _coordinates(x, height)[:, None].expand(-1, width)
    return torch.stack([columns, rows]).unsqueeze(0)


def _coordinates(x: torch.Tensor, size: int) -> torch.Tensor:
    """linspace(-1, 1, size), which torch.export would fix to one size."""
    steps = 2 * torch.arange(size, device=x.device) - (size - 1)
    return steps.to(x.dtype) / max(size - 1, 1)


def _patches(x: torch.Tensor, kernel_size: int, padding: int) -> torch.Tensor:
    """Footprint of each pixel, channel by channel: [N, C * K, P].

    Unlike torch's own reflection padding this one takes images smaller than
    the footprint.
    """
    for dim in (2, 3):
        size = x.shape[dim]
        places = torch.arange(-padding, size + padding, device=x.device)
        x = x.index_select(dim, mirrored(places, size))
    return F.unfold(x, kernel_size)
