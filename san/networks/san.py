"""The self-attention network: stages of attention bottlenecks.

The attention blocks are in `san.attention`; the named sizes in `zoo`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gin
import torch
from torch import nn
from torch.nn import functional as F

from san import ops
from san.attention import Attention
from san.backend import runs_fused

# Makes an attention block from its channels and its kernel_size.
AttentionFactory = Callable[[int, int], Attention]


class Bottleneck(nn.Module):
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] to the same shape."""
        if self.sam.runs_fused(x):
            features = ops.norm_relu_linear(
                x, self.bn1, *self.sam.transformations()
            )
            return ops.norm_relu_linear(
                self.sam.attend(features),
                self.bn2,
                self.conv.weight,
                self.conv.bias,
                residual=x,
            )
        y = self.sam(self.relu(self.bn1(x)))
        return x + self.conv(self.relu(self.bn2(y)))


@gin.configurable(module="san")
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

    Raises:
      ValueError: if the three sequences differ in length.
    """

    def __init__(
        self,
        attention: AttentionFactory,
        num_blocks: Sequence[int],
        kernel_sizes: Sequence[int] = (3, 7, 7, 7, 7),
        widths: Sequence[int] = (64, 256, 512, 1024, 2048),
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        if not len(num_blocks) == len(kernel_sizes) == len(widths):
            raise ValueError(
                "SAN: num_blocks, kernel_sizes and widths must have one entry "
                f"per stage, got {num_blocks}, {kernel_sizes} and {widths}"
            )
        self.conv_in = nn.Conv2d(3, widths[0], 1, bias=False)
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images [N, 3, H, W] to logits [N, num_classes].

        H and W are at least 2 ** stages, 32 for the published networks.
        """
        if runs_fused(x):
            return self._fused(x)
        x = self.relu(self.bn_in(self.conv_in(x)))
        for conv, blocks, norm in self._stages():
            x = self.relu(norm(blocks(conv(self.pool(x)))))
        return self.fc(self.avgpool(x).flatten(1))

    def _stages(self) -> list[tuple[Any, ...]]:
        """The transition, the bottlenecks and the norm of each stage."""
        return [
            tuple(
                self.get_submodule(f"{name}{stage}")
                for name in ("conv", "layer", "bn")
            )
            for stage in range(self.num_stages)
        ]

    def _fused(self, images: torch.Tensor) -> torch.Tensor:
        """forward, with each norm, ReLU and pooling as one operator.

        All images are in channels-last, which is what the operators make.
        """
        x = ops.stem(images, self.conv_in, self.bn_in)
        *stages, last = self._stages()
        for conv, blocks, norm in stages:
            x = ops.norm_relu(blocks(_linear(x, conv)), norm, pool=2)
        conv, blocks, norm = last
        x = ops.norm_relu(blocks(_linear(x, conv)), norm)
        return self.fc(self.avgpool(x).flatten(1))


def _linear(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """A 1x1 convolution of an image in channels-last."""
    rows = F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1))
    return rows.permute(0, 3, 1, 2)
