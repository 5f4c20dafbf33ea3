"""The window operators as the chosen backend computes them, and plain taps.

Taps are made by subtraction, which copies them faster than torch's unfold. So
that count_cost sees functions that compute nothing, they can be overridden as
torch's own functions can.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P = H * W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import (
    handle_torch_function,
    has_torch_function_unary,
    has_torch_function_variadic,
)

from san import ops
from san.backend import attention_backend
from san.ops import reference


def window_ops() -> Any:
    """The module with aggregation, correlation and the subtractions."""
    return reference if attention_backend() == "reference" else ops


def same_window(kernel_size: int) -> dict[str, int]:
    """The footprint whose output has the size of the image."""
    return {"kernel_size": kernel_size, "padding": kernel_size // 2}


def taps(image: Tensor, kernel_size: int) -> Tensor:
    """The footprint of each pixel of [N, C, H, W]: [N, C, K, P]."""
    if has_torch_function_unary(image):
        return handle_torch_function(taps, (image,), image, kernel_size)
    # 0 - (-x) is x.
    return window_ops().subtraction2(
        torch.zeros_like(image), -image, **same_window(kernel_size)
    )


def beside_taps(here: Tensor, there: Tensor, kernel_size: int) -> Tensor:
    """Each pixel of an image beside the taps of another: [N, 2 * C, K, P].

    Both are [N, C, H, W].
    """
    if has_torch_function_variadic(here, there):
        return handle_torch_function(
            beside_taps, (here, there), here, there, kernel_size
        )
    # here - 0 and 0 - (-there): written once, where they have to be.
    nothing = torch.zeros_like(here)
    return window_ops().subtraction2(
        torch.cat([here, nothing], dim=1),
        torch.cat([nothing, -there], dim=1),
        **same_window(kernel_size),
    )
