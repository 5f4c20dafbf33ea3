"""The window operators as the chosen backend computes them, and plain taps.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from san import ops
from san.backend import attention_backend
from san.ops import reference
from san.ops.window import mirrored


def window_ops() -> Any:
    """The module with aggregation, correlation and the subtractions."""
    return reference if attention_backend() == "reference" else ops


def same_window(kernel_size: int) -> dict[str, int]:
    """The footprint whose output has the size of the image."""
    return {"kernel_size": kernel_size, "padding": kernel_size // 2}


def taps(image: Tensor, kernel_size: int) -> Tensor:
    """The footprint of each pixel of [N, C, H, W]: [N, C, K, P]."""
    around = padded(image, kernel_size // 2)
    return F.unfold(around, kernel_size).unflatten(1, (image.shape[1], -1))


def padded(image: Tensor, padding: int) -> Tensor:
    """An image [N, C, H, W] with its reflection on each side.

    Unlike torch's own reflection padding this one takes images smaller than
    the padding.
    """
    for dim in (2, 3):
        size = image.shape[dim]
        places = torch.arange(-padding, size + padding, device=image.device)
        image = image.index_select(dim, mirrored(places, size))
    return image
