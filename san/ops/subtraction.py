"""Subtraction: the difference between a window's centre and each of its taps.

Shape letters: N batch, C channels, H W image, K taps of the footprint,
P output pixels.
"""

from typing import Any

import torch

import cuda_kernels
from san.ops.registration import (
    WINDOW_SCHEMA,
    define,
    empty_image,
    image_format,
    register_autocast,
    run_kernel,
)
from san.ops.window import Window, check_alike, check_image, check_window


def subtraction2(
    a: torch.Tensor,
    b: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """out[n,c,tap,p] = a at the centre of window p - b at its tap.

    The relation of the pairwise attention of "Exploring Self-attention for
    Image Recognition", CVPR 2020, section 3.1. The centre is tap
    (kernel_size - 1) // 2 of both axes, and padded as the taps are.
    Differentiable in both tensors, in both modes and to every order; one call
    under vmap.

    Args:
      a: [N, C, H, W]. The layout of a is that of both images' gradients; in
        channels-last on the CPU nothing is copied.
      b: [N, C, H, W], best in the layout of a.
      kernel_size: rows and columns of the footprint.
      stride: pixels between two places of the window.
      padding: pixels added to each side of both images.
      dilation: pixels between two taps.
      padding_mode: "reflect" (as numpy.pad, for every size) or "zeros".

    Returns:
      [N, C, K, P], row-major, with K = kernel_size**2 taps row by row and
      P = H_out * W_out; H_out = (H + 2 * padding - dilation *
      (kernel_size - 1) - 1) // stride + 1 and W_out likewise.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    window = check_window(
        "subtraction2",
        Window(kernel_size, stride, padding, dilation, padding_mode),
    )
    check_image("subtraction2", "a", a, window)
    check_image("subtraction2", "b", b, window)
    check_alike("subtraction2", "b", b, "a", a)
    if a.shape != b.shape:
        raise ValueError(
            f"subtraction2: b must have the shape of a, {list(a.shape)}, "
            f"got {list(b.shape)}"
        )
    return torch.ops.san.subtraction2(a, b, *window)


def subtraction(
    x: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """out[n,c,tap,p] = x at the centre of window p - x at its tap.

    The same as subtraction2(x, x): see there for the arguments, the shapes
    and the source.
    """
    window = check_window(
        "subtraction",
        Window(kernel_size, stride, padding, dilation, padding_mode),
    )
    check_image("subtraction", "x", x, window)
    return torch.ops.san.subtraction2(x, x, *window)


def _forward(a: torch.Tensor, b: torch.Tensor, *window: Any) -> torch.Tensor:
    output = _empty_output(a, b, *window)
    memory_format = image_format(a)
    run_kernel(
        cuda_kernels.subtraction2_forward,
        a.contiguous(memory_format=memory_format),
        b.contiguous(memory_format=memory_format),
        output,
        window=Window(*window),
    )
    return output


def _empty_output(
    a: torch.Tensor, b: torch.Tensor, *window_fields: Any
) -> torch.Tensor:
    window = Window(*window_fields)
    batch, channels, height, width = a.shape
    pixels = window.output_size(height) * window.output_size(width)
    return a.new_empty((batch, channels, window.num_taps, pixels))


def _backward(
    grad_output: torch.Tensor, *image_and_window: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    grads = _empty_grads(grad_output, *image_and_window)
    _, _, _, *window = image_and_window
    run_kernel(
        cuda_kernels.subtraction2_backward,
        grad_output.contiguous(),
        *grads,
        window=Window(*window),
    )
    return grads


def _empty_grads(
    grad_output: torch.Tensor,
    height: int,
    width: int,
    channels_last: bool,
    *window: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*grad_output.shape[:2], height, width)
    memory_format = (
        torch.channels_last if channels_last else torch.contiguous_format
    )
    return (
        empty_image(grad_output, shape, memory_format),
        empty_image(grad_output, shape, memory_format),
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    a, _, *ctx.window = inputs
    ctx.image = *a.shape[2:], image_format(a) == torch.channels_last


def _differentiate_forward(ctx: Any, grad_output: torch.Tensor) -> Any:
    grads = torch.ops.san.subtraction2_backward(
        grad_output, *ctx.image, *ctx.window
    )
    return (*grads, *(None for _ in ctx.window))


def _push_forward(
    tangents: Any, a: torch.Tensor, b: torch.Tensor, *window: Any
) -> torch.Tensor:
    of_a, of_b, *_ = tangents
    return torch.ops.san.subtraction2(
        torch.zeros_like(a) if of_a is None else of_a,
        torch.zeros_like(b) if of_b is None else of_b,
        *window,
    )


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, _, _, _, *ctx.window = inputs


def _differentiate_backward(
    ctx: Any, grad_a: torch.Tensor, grad_b: torch.Tensor
) -> Any:
    # Subtraction is linear: it is the derivative of its own gradient.
    grad = torch.ops.san.subtraction2(grad_a, grad_b, *ctx.window)
    return (grad, None, None, None, *(None for _ in ctx.window))


def _push_backward(
    tangents: Any, grad_output: torch.Tensor, *image_and_window: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ops.san.subtraction2_backward(tangents[0], *image_and_window)


define(
    f"subtraction2(Tensor a, Tensor b, {WINDOW_SCHEMA}) -> Tensor",
    _forward,
    fake=_empty_output,
    backward=_differentiate_forward,
    setup_context=_save_forward,
    jvp=_push_forward,
    mixes_samples=False,
)
define(
    "subtraction2_backward(Tensor grad_output, SymInt height, SymInt width, "
    f"bool channels_last, {WINDOW_SCHEMA}) -> (Tensor, Tensor)",
    _backward,
    fake=_empty_grads,
    backward=_differentiate_backward,
    setup_context=_save_backward,
    jvp=_push_backward,
    mixes_samples=False,
)
register_autocast("subtraction2")
