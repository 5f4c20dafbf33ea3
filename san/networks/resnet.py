"""Bottleneck ResNets, the convolutional baselines of the paper.

Parameters are named as torchvision names them.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import gin
import torch
from torch import nn

from san.networks.stochastic_depth import ResidualBlock

WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class ConvolutionBottleneck(ResidualBlock):
    """y = relu(shortcut(x) + 1x1(kxk(1x1(x)))), a BN after each convolution.

    Source: "Deep Residual Learning for Image Recognition", CVPR 2016,
    section 4.1, where k is 3, with the stride on the kxk.

    Args:
      in_channels: channels of the input.
      width: channels inside; the output has four times as many.
      stride: 2 halves the image.
      kernel_size: k; odd.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, kernel_size: int = 3
    ) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width,
            width,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            bias=False,
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [N, in_channels, H, W] to [N, 4 * width, H / stride, ...]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self._drops():
            y = self._kept(y)
        return self.relu(self.downsample(x) + y)


@gin.configurable(module="san", denylist=["num_classes", "in_channels"])
class ResNet(nn.Module):
    """Classifies images with bottleneck convolutions.

    Source: "Deep Residual Learning for Image Recognition", CVPR 2016; larger
    kernels as in "Exploring Self-attention for Image Recognition", CVPR 2020,
    section 5.3.

    Args:
      num_blocks: bottlenecks in each of the four stages, at least one.
      num_classes: length of the output.
      kernel_size: rows and columns of the convolution inside every
        bottleneck, odd; the stem's stays 7x7.
      widths: channels inside the bottlenecks of each stage; the stem has as
        many as the first, what leaves a stage four times as many.
      in_channels: channels of the images.

    Raises:
      ValueError: if num_blocks or widths has not four entries of at least 1,
        or kernel_size is no positive odd number.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        num_classes: int = 1000,
        kernel_size: int = 3,
        widths: Sequence[int] = WIDTHS,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check("num_blocks", num_blocks)
        _check("widths", widths)
        _check_kernel_size(kernel_size)
        first = widths[0]
        self.conv1 = nn.Conv2d(
            in_channels, first, 7, stride=2, padding=3, bias=False
        )
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stage = functools.partial(_stage, kernel_size=kernel_size)
        outer = [_EXPANSION * width for width in widths]
        self.layer1 = stage(first, widths[0], num_blocks[0], stride=1)
        self.layer2 = stage(outer[0], widths[1], num_blocks[1], stride=2)
        self.layer3 = stage(outer[1], widths[2], num_blocks[2], stride=2)
        self.layer4 = stage(outer[2], widths[3], num_blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(outer[3], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images [N, in_channels, H, W] to logits [N, num_classes]."""
        for stage_map in stage_maps(self, x):
            x = stage_map
        return self.fc(self.avgpool(x).flatten(1))


def stage_maps(network: Any, images: torch.Tensor) -> Iterator[torch.Tensor]:
    """What leaves each stage.

    Args:
      network: a ResNet, or what has its modules.
      images: [N, in_channels, H, W].
    """
    x = network.relu(network.bn1(network.conv1(images)))
    x = network.maxpool(x)
    for stage in range(1, len(WIDTHS) + 1):
        x = network.get_submodule(f"layer{stage}")(x)
        yield x


def _stage(
    in_channels: int, width: int, num_blocks: int, stride: int, kernel_size: int
) -> nn.Sequential:
    bottleneck = functools.partial(
        ConvolutionBottleneck, width=width, kernel_size=kernel_size
    )
    blocks = [bottleneck(in_channels, stride=stride)]
    for _ in range(num_blocks - 1):
        blocks.append(bottleneck(width * _EXPANSION, stride=1))
    return nn.Sequential(*blocks)


def _check(name: str, numbers: Any) -> None:
    if len(numbers) != len(WIDTHS):
        raise ValueError(
            f"ResNet: {name} must have {len(WIDTHS)} entries, got {numbers}"
        )
    if not all(map(_is_count, numbers)):
        raise ValueError(
            f"ResNet: {name} must be numbers of at least 1, got {numbers}"
        )


def _check_kernel_size(kernel_size: Any) -> None:
    if not _is_count(kernel_size) or kernel_size % 2 == 0:
        raise ValueError(
            "ResNet: kernel_size must be a positive odd number, "
            f"got {kernel_size!r}"
        )


def _is_count(value: Any) -> bool:
    return (
        hasattr(value, "__index__")
        and not isinstance(value, bool)
        and value > 0
    )
