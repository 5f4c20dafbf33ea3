"""The operators in plain PyTorch, written as they are defined.

The oracle of the tests, and readable documentation: same arguments and
results as `san.ops`, any device and any size, no checks and no speed.
"""

import torch

from san.ops.window import Window, mirrored


def aggregation(
    input: torch.Tensor,
    weight: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """Reference of san.ops.aggregation."""
    window = Window(kernel_size, stride, padding, dilation, padding_mode)
    batch, channels, height, width = input.shape
    groups = weight.shape[1]
    # Weight channel g serves the channels g, g + groups, g + 2 * groups, ...
    taps = _taps(input, window).unflatten(1, (channels // groups, groups))
    # A product of matrices, which FlopCounterMode counts, for each group and
    # pixel: [N, G, P, C / G, K] by [N, G, P, K, 1].
    output = taps.permute(0, 2, 4, 1, 3) @ weight.transpose(2, 3).unsqueeze(4)
    return output.permute(0, 3, 1, 2, 4).reshape(
        batch, channels, window.output_size(height), window.output_size(width)
    )


def correlation(
    a: torch.Tensor,
    b: torch.Tensor,
    num_groups: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """Reference of san.ops.correlation."""
    window = Window(kernel_size, stride, padding, dilation, padding_mode)
    products = a.flatten(2)[:, :, None] * _taps(b, window)
    return products.unflatten(1, (-1, num_groups)).sum(1)


def subtraction2(
    a: torch.Tensor,
    b: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """Reference of san.ops.subtraction2."""
    window = Window(kernel_size, stride, padding, dilation, padding_mode)
    middle = (kernel_size - 1) // 2
    centre = middle * kernel_size + middle
    return _taps(a, window)[:, :, centre : centre + 1] - _taps(b, window)


def subtraction(
    x: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """Reference of san.ops.subtraction."""
    return subtraction2(
        x, x, kernel_size, stride, padding, dilation, padding_mode
    )


def _taps(image: torch.Tensor, window: Window) -> torch.Tensor:
    """All taps of all windows: [N, C, H, W] to [N, C, K, P]."""
    height, width = image.shape[2:]
    rows = _positions(height, window, image.device)[:, None, :, None]
    columns = _positions(width, window, image.device)[:, None, :]
    inside = _is_inside(rows, height) & _is_inside(columns, width)
    taps = image[:, :, mirrored(rows, height), mirrored(columns, width)]
    if window.padding_mode == "zeros":
        taps = taps.masked_fill(~inside, 0)
    return taps.flatten(4, 5).flatten(2, 3)


def _positions(size: int, window: Window, device: torch.device) -> torch.Tensor:
    """Where each tap of each window lies on an axis: [kernel_size, places]."""
    taps = torch.arange(window.kernel_size, device=device)
    places = torch.arange(window.output_size(size), device=device)
    start = places * window.stride - window.padding
    return start + taps[:, None] * window.dilation


def _is_inside(positions: torch.Tensor, size: int) -> torch.Tensor:
    return (positions >= 0) & (positions < size)
