"""The self-attention network: stages of attention bottlenecks.

The attention blocks are in `san.attention`; the named sizes in `zoo`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin
from torch import Tensor, nn

from san.attention import Attention
from san.fusion import (
    Group,
    NormRelu,
    NormReluLinear,
    Pointwise,
    Stem,
    describe_unfused,
    rule,
)
from san.networks.stochastic_depth import ResidualBlock

# Makes an attention block from its channels and its kernel_size.
AttentionFactory = Callable[[int, int], Attention]


class Bottleneck(ResidualBlock):
    """y = x + expand(attend(x)), each after a BN and a ReLU.

    Source: "Exploring Self-attention for Image Recognition", CVPR 2020,
    section 3.3.

    Args:
      attention: makes the attention block, such as PairwiseAttention.
      channels: C of input and output [N, C, H, W].
      kernel_size: rows and columns of the footprint.
    """

    def __init__(
        self, attention: AttentionFactory, channels: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.sam = attention(channels, kernel_size)
        self.bn2 = nn.BatchNorm2d(self.sam.out_channels)
        self.conv = nn.Conv2d(self.sam.out_channels, channels, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        y = self._attended(x)
        if self._drops():
            return x + self._kept(self._leave()(y))
        return self._leave().add_to(x, y)

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        why, sam = self._why_called(), self.sam
        own = rule.why_overridden(type(self).__name__, self, BOTTLENECK_METHODS)
        if not why and not sam.why_unfused(like):
            why = self._enter().why(like)
        # Both may say the same of their ReLU.
        reasons = dict.fromkeys((own, why, self._leave().why(like)))
        return [why for why in reasons if why]

    def extra_repr(self) -> str:
        """What is not fused, if anything."""
        return describe_unfused(self)

    def _attended(self, x: Tensor) -> Tensor:
        sam: Any = self.sam
        if not self._why_called() and not sam.why_unfused(x):
            enter = self._enter()
            if enter.takes(x):
                return sam.attend(enter.fused(x))
        return sam(NormRelu(self, "bn1", "relu")(x))

    def _why_called(self) -> str:
        """Why the attention is called as one, not through its parts."""
        if not isinstance(self.sam, Attention):
            return f"sam is a {type(self.sam).__name__}"
        return rule.why_hooked("sam", self.sam)

    def _enter(self) -> NormReluLinear:
        sam: Any = self.sam
        convs = (f"sam.{name}" for name in sam.transformations)
        return NormReluLinear(self, "bn1", "relu", *convs)

    def _leave(self) -> NormReluLinear:
        return NormReluLinear(self, "bn2", "relu", "conv")


@gin.configurable(module="san", denylist=["num_classes", "in_channels"])
class SAN(nn.Module):
    """Classifies images with self-attention in place of convolution.

    Source: "Exploring Self-attention for Image Recognition", CVPR 2020,
    section 3.4. Parameters are named as in the published checkpoints.

    Args:
      attention: makes an attention block: PairwiseAttention or
        PatchwiseAttention.
      num_blocks: bottlenecks in each stage.
      kernel_sizes: footprint of each stage.
      widths: channels of each stage; each stage halves the image first.
      num_classes: length of the output.
      in_channels: channels of the images.

    Raises:
      ValueError: if the three sequences differ in length or are empty, a
        number of blocks is negative, or attention makes nothing.
    """

    def __init__(
        self,
        attention: AttentionFactory,
        num_blocks: Sequence[int],
        kernel_sizes: Sequence[int] = (3, 7, 7, 7, 7),
        widths: Sequence[int] = (64, 256, 512, 1024, 2048),
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not len(num_blocks) == len(kernel_sizes) == len(widths):
            raise ValueError(
                "SAN: num_blocks, kernel_sizes and widths must have one entry "
                f"per stage, got {num_blocks}, {kernel_sizes} and {widths}"
            )
        if not callable(attention):
            raise ValueError(
                "SAN: attention must make a block, as PairwiseAttention does, "
                f"got {attention!r}"
            )
        if not num_blocks or min(num_blocks) < 0:
            raise ValueError(
                "SAN: num_blocks must be numbers of at least 0, one for each "
                f"stage, got {num_blocks}"
            )
        self.conv_in = nn.Conv2d(in_channels, widths[0], 1, bias=False)
        self.bn_in = nn.BatchNorm2d(widths[0])
        self.num_stages = len(widths)
        previous = widths[0]
        for stage, width in enumerate(widths):
            blocks = [
                Bottleneck(attention, width, kernel_sizes[stage])
                for _ in range(num_blocks[stage])
            ]
            transition = nn.Conv2d(previous, width, 1, bias=False)
            self.add_module(f"conv{stage}", transition)
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.add_module(f"bn{stage}", nn.BatchNorm2d(width))
            previous = width
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(previous, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, in_channels, H, W] to logits [N, num_classes].

        H and W are at least 2 ** stages, 32 for the published networks. What
        hooks see between the layers may be in channels-last: reshape it, or
        flatten it, rather than view it.
        """
        for step in self._steps():
            x = step(x)
        return self.fc(self.avgpool(x).flatten(1))

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        own = rule.why_overridden(type(self).__name__, self, SAN_METHODS)
        groups = [step for step in self._steps() if isinstance(step, Group)]
        return [why for why in (own, *(g.why(like) for g in groups)) if why]

    def extra_repr(self) -> str:
        """What is not fused, if anything."""
        return describe_unfused(self)

    def _steps(self) -> Iterator[Group | nn.Module]:
        return steps_of(self)


def steps_of(network: Any) -> Iterator[Group | nn.Module]:
    """Everything before the head, in order.

    The norm after a stage, the pooling and the next stage's convolution are
    one step, so that what is between them is not kept for the backward pass.

    Args:
      network: a SAN, or what has its modules.
    """
    yield _stem(network)
    yield Pointwise(network, "conv0")
    last = network.num_stages - 1
    for stage in range(last):
        yield network.get_submodule(f"layer{stage}")
        names = f"bn{stage}", "relu", "pool", f"conv{stage + 1}"
        yield NormReluLinear(network, *names, pools=True)
    yield network.get_submodule(f"layer{last}")
    yield NormRelu(network, f"bn{last}", "relu")


def _stem(network: Any) -> Stem:
    return Stem(network, "conv_in", "bn_in", "relu", "pool")


def stage_maps(network: Any, images: Tensor) -> Iterator[Tensor]:
    """What leaves each stage, after its norm and ReLU and before the pooling.

    Args:
      network: a SAN, or what has its modules.
      images: [N, in_channels, H, W].
    """
    x = _stem(network)(images)
    for stage in range(network.num_stages):
        if stage:
            x = network.pool(x)
        x = Pointwise(network, f"conv{stage}")(x)
        x = network.get_submodule(f"layer{stage}")(x)
        x = NormRelu(network, f"bn{stage}", "relu")(x)
        yield x


# What decides how they compute, as it was when they were made.
BOTTLENECK_METHODS = rule.methods_of(
    Bottleneck, "_attended", "_enter", "_leave", "_why_called"
)
SAN_METHODS = rule.methods_of(SAN, "_steps")
