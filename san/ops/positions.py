"""Where the pixels of an image lie: the geometry of the pairwise attention.

Columns and rows of an image go from -1 to 1 (a single one lies at 0). Source:
"Exploring Self-attention for Image Recognition", CVPR 2020, section 3.1.
"""

from typing import Any

import torch
from torch import Tensor


def coordinates(image: Tensor) -> Tensor:
    """Column and row of each pixel of [N, C, H, W]: [1, 2, H, W]."""
    height, width = image.shape[2:]
    columns = _axis(image, width).expand(height, -1)
    rows = _axis(image, height)[:, None].expand(-1, width)
    return torch.stack([columns, rows]).unsqueeze(0)


def offsets(image: Tensor, kernel_size: int) -> Tensor:
    """How far each tap of the footprint lies from its centre: [K, 2].

    Column and row, in float64, for an image [N, C, H, W].
    """
    height, width = image.shape[2:]
    taps = torch.arange(kernel_size, dtype=torch.float64, device=image.device)
    taps = taps - kernel_size // 2
    columns = (taps * _spacing(width)).expand(kernel_size, -1)
    rows = (taps * _spacing(height))[:, None].expand(-1, kernel_size)
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)


def _axis(image: Tensor, size: int) -> Tensor:
    # linspace(-1, 1, size), which torch.export would fix to one size.
    steps = 2 * torch.arange(size, device=image.device) - (size - 1)
    return steps.to(image.dtype) / _gaps(size)


def _spacing(size: int) -> float:
    """Distance of two neighbours."""
    return 2 / _gaps(size)


def _gaps(size: int) -> Any:
    """Steps from the first pixel to the last, at least 1, as they are recorded.

    By max() a recording would keep the larger of the two for every size.
    """
    if torch.jit.is_tracing():  # Sizes are tensors then.
        return torch.as_tensor(size - 1).clamp(min=1)
    if isinstance(size, int):  # torch 2.11 compiles no sym_max of numbers.
        return max(size - 1, 1)
    return torch.sym_max(size - 1, 1)
