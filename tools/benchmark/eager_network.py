"""SAN as the published design: one eager operation after the other.

The whole network in plain PyTorch, with the state dict of san.networks, to
compare speed and memory with. Nothing of `san` is used, so that it stays what
it is when `san` gets faster.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels, R relation channels, G weight channels.
"""

from typing import Any

import torch
from torch import nn

from tools.benchmark import peers

_NUM_BLOCKS = {
    "san10": (2, 1, 2, 4, 1),
    "san15": (3, 2, 3, 5, 2),
    "san19": (3, 3, 4, 6, 3),
}
_KERNEL_SIZES = (3, 7, 7, 7, 7)
_WIDTHS = (64, 256, 512, 1024, 2048)


class EagerPairwiseCore(nn.Module):
    """Relation, mapping, softmax and aggregation: phi, psi, beta to output."""

    def __init__(
        self, channels: int, kernel_size: int, operators: Any = peers.Unfold
    ) -> None:
        super().__init__()
        relation, weights = channels // 16, channels // 32
        self.kernel_size = kernel_size
        self.operators = operators
        self.conv_p = nn.Conv2d(2, 2, 1)
        self.conv_w = _mapping(relation + 2, relation, weights)

    def forward(
        self, phi: torch.Tensor, psi: torch.Tensor, beta: torch.Tensor
    ) -> torch.Tensor:
        """phi, psi [N, R, H, W] and beta [N, M, H, W] to [N, M, H, W]."""
        k = self.kernel_size
        subtraction2 = self.operators.subtraction2
        position = self.conv_p(_positions(phi))
        relation = torch.cat(
            [
                subtraction2(phi, psi, k),
                subtraction2(position, position, k).repeat(
                    phi.shape[0], 1, 1, 1
                ),
            ],
            dim=1,
        )
        weight = self.conv_w(relation).softmax(dim=2)
        return self.operators.aggregation(beta, weight, k)


class EagerPatchwiseCore(nn.Module):
    """Relation, mapping and aggregation: phi, psi, beta to the output."""

    def __init__(
        self, channels: int, kernel_size: int, operators: Any = peers.Unfold
    ) -> None:
        super().__init__()
        relation, weights = channels // 16, channels // 32
        self.kernel_size = kernel_size
        self.operators = operators
        taps = kernel_size**2
        self.conv_w = _mapping(relation * (taps + 1), weights, weights * taps)

    def forward(
        self, phi: torch.Tensor, psi: torch.Tensor, beta: torch.Tensor
    ) -> torch.Tensor:
        """phi, psi [N, R, H, W] and beta [N, M, H, W] to [N, M, H, W]."""
        k = self.kernel_size
        patches = peers.unfolded(psi, k).flatten(1, 2)
        relation = torch.cat([phi.flatten(2), patches], dim=1).unsqueeze(2)
        weight = self.conv_w(relation).squeeze(2).unflatten(1, (-1, k * k))
        return self.operators.aggregation(beta, weight, k)


CORES = {"pair": EagerPairwiseCore, "patch": EagerPatchwiseCore}


def draw_norms(module: nn.Module) -> None:
    """Draws the parameters and statistics of all batch normalisations.

    At their initial values the position's differences lie on the kink of the
    ReLU behind them, and gradients depend on how zero was rounded.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


class EagerSAN(nn.Module):
    """The network of a name such as san10_pair; 1000 classes.

    Args:
      name: size and kind.
      operators: has aggregation(x, weight, kernel_size) and
        subtraction2(a, b, kernel_size), both with "same" padding.
    """

    def __init__(self, name: str, operators: Any = peers.Unfold) -> None:
        super().__init__()
        size, kind = name.split("_")
        self.conv_in = nn.Conv2d(3, _WIDTHS[0], 1, bias=False)
        self.bn_in = nn.BatchNorm2d(_WIDTHS[0])
        previous = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            blocks = [
                _EagerBottleneck(kind, width, _KERNEL_SIZES[stage], operators)
                for _ in range(_NUM_BLOCKS[size][stage])
            ]
            conv = nn.Conv2d(previous, width, 1, bias=False)
            self.add_module(f"conv{stage}", conv)
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.add_module(f"bn{stage}", nn.BatchNorm2d(width))
            previous = width
        self.fc = nn.Linear(previous, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images [N, 3, H, W] to logits [N, 1000]."""
        x = self.bn_in(self.conv_in(x)).relu()
        for stage in range(len(_WIDTHS)):
            x = nn.functional.max_pool2d(x, 2)
            x = self.get_submodule(f"conv{stage}")(x)
            x = self.get_submodule(f"layer{stage}")(x)
            x = self.get_submodule(f"bn{stage}")(x).relu()
        return self.fc(x.mean((2, 3)))


class _EagerBottleneck(nn.Module):
    def __init__(
        self, kind: str, channels: int, kernel_size: int, operators: Any
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.sam = CORES[kind](channels, kernel_size, operators)
        self.sam.conv1 = nn.Conv2d(channels, channels // 16, 1)
        self.sam.conv2 = nn.Conv2d(channels, channels // 16, 1)
        self.sam.conv3 = nn.Conv2d(channels, channels // 4, 1)
        self.bn2 = nn.BatchNorm2d(channels // 4)
        self.conv = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(x).relu()
        sam = self.sam
        y = sam(sam.conv1(y), sam.conv2(y), sam.conv3(y))
        return x + self.conv(self.bn2(y).relu())


def _mapping(relation: int, hidden: int, weights: int) -> nn.Sequential:
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
    rows, columns = (
        torch.linspace(-1, 1, size, device=x.device, dtype=x.dtype)
        for size in x.shape[2:]
    )
    grid = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([grid[1], grid[0]]).unsqueeze(0)
