"""The resize of the input, on the CPU; no operator of a network.

Plain function, since nothing differentiates, compiles or exports it. Its CUDA
counterpart is torch's own filter, in san/data/resizing.py.
"""

from collections.abc import Sequence

import torch

import cuda_kernels


def write_square(
    window: torch.Tensor,
    square: torch.Tensor,
    *,
    scales: Sequence[float],
    corner: Sequence[int],
    mirrored: bool,
    shift: Sequence[float],
    factor: Sequence[float],
) -> None:
    """Writes a normalised square of a resized window.

    square[c, y, x] = (level - shift[c]) * factor[c], where level is pixel
    (corner[0] + y, corner[1] + x) of the window, resized by PIL's antialiased
    bilinear filter: rows first, then columns, each rounded to grey levels.
    That is PIL's result to the bit, or within one grey level where PIL takes
    columns first.

    Args:
      window: uint8 [height, width, 3], contiguous, on the CPU.
      square: float32 [3, side, side], likewise; written in place.
      scales: window pixels for one pixel of the resized window, by axis.
      corner: top, left of the square in the resized window.
      mirrored: count x from the right of the square.
      shift: of each colour, in grey levels.
      factor: of each colour.

    Raises:
      ValueError: an argument breaks a rule, which the message names.
    """
    cuda_kernels.square(
        window.numpy(),
        square.numpy(),
        scales=scales,
        corner=corner,
        mirrored=mirrored,
        shift=shift,
        factor=factor,
    )
