"""Aggregation: a weighted sum over the footprint, with its own weights at
every pixel.

Shape letters: N batch, C channels, G weight channels, H W image, K taps of
the footprint, P output pixels.
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
from san.ops.window import (
    Window,
    check_alike,
    check_image,
    check_tensor,
    check_window,
)


def aggregation(
    input: torch.Tensor,
    weight: torch.Tensor,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: str = "reflect",
) -> torch.Tensor:
    """out[n,c,p] = sum over taps of weight[n, c mod G, tap, p] * input there.

    The sum that ends both attentions of "Exploring Self-attention for Image
    Recognition", CVPR 2020, sections 3.1 and 3.2. Channels share weights
    interleaved: channel c uses weight channel c mod G. Differentiable in
    both tensors, twice.

    Args:
      input: [N, C, H, W]; C is a multiple of G. In channels-last on the CPU
        it is read as it is, and the output is in channels-last too.
      weight: [N, G, K, P] with K = kernel_size**2 taps in row-major order
        and P = H_out * W_out.
      kernel_size: rows and columns of the footprint.
      stride: pixels between two places of the window.
      padding: pixels added to each side of the image.
      dilation: pixels between two taps.
      padding_mode: "reflect" (as numpy.pad, for every size) or "zeros".

    Returns:
      [N, C, H_out, W_out] with H_out = (H + 2 * padding - dilation *
      (kernel_size - 1) - 1) // stride + 1 and W_out likewise.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    window = Window(kernel_size, stride, padding, dilation, padding_mode)
    check_window("aggregation", window)
    check_image("aggregation", "input", input, window)
    _check_weight(input, weight, window)
    return torch.ops.san.aggregation(input, weight, *window)


def _check_weight(input: torch.Tensor, weight: Any, window: Window) -> None:
    check_tensor("aggregation", "weight", weight)
    check_alike("aggregation", "weight", weight, "input", input)
    batch, channels, height, width = input.shape
    groups = weight.shape[1]
    if groups < 1 or channels % groups:
        raise ValueError(
            "aggregation: weight must have a number of channels that divides "
            f"the {channels} channels of input, got {groups}"
        )
    pixels = window.output_size(height) * window.output_size(width)
    expected = [batch, groups, window.num_taps, pixels]
    if list(weight.shape) != expected:
        raise ValueError(
            "aggregation: weight must have the shape [N, G, kernel_size**2, "
            f"H_out * W_out] = {expected}, got {list(weight.shape)}"
        )


def _forward(
    input: torch.Tensor, weight: torch.Tensor, *window: Any
) -> torch.Tensor:
    output = _empty_output(input, weight, *window)
    run_kernel(
        cuda_kernels.aggregation_forward,
        input.contiguous(memory_format=image_format(input)),
        weight.contiguous(),
        output,
        window=Window(*window),
    )
    return output


def _empty_output(
    input: torch.Tensor, weight: torch.Tensor, *window: Any
) -> torch.Tensor:
    batch, channels, height, width = input.shape
    output_size = Window(*window).output_size
    shape = (batch, channels, output_size(height), output_size(width))
    return empty_image(input, shape, image_format(input))


def _backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    *window_and_needs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    *window, needs_input, needs_weight = window_and_needs
    grads = _empty_grads(grad_output, input, weight, *window_and_needs)
    memory_format = image_format(input)
    run_kernel(
        cuda_kernels.aggregation_backward,
        grad_output.contiguous(memory_format=memory_format),
        input.contiguous(memory_format=memory_format),
        weight.contiguous(),
        grads[0] if needs_input else None,
        grads[1] if needs_weight else None,
        window=Window(*window),
    )
    return grads


def _empty_grads(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    *window_and_needs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    *_, needs_input, needs_weight = window_and_needs
    # An operator cannot return None: a gradient nobody needs is empty.
    grad_input = input.new_empty(0)
    if needs_input:
        grad_input = empty_image(input, input.shape, image_format(input))
    return grad_input, weight.new_empty(weight.shape if needs_weight else 0)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    input, weight, *ctx.window = inputs
    ctx.save_for_backward(input, weight)


def _differentiate_forward(ctx: Any, grad_output: torch.Tensor) -> Any:
    needs_input, needs_weight, *_ = ctx.needs_input_grad
    grad_input, grad_weight = torch.ops.san.aggregation_backward(
        grad_output, *ctx.saved_tensors, *ctx.window, needs_input, needs_weight
    )
    return (
        grad_input if needs_input else None,
        grad_weight if needs_weight else None,
        *(None for _ in ctx.window),
    )


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad_output, input, weight, *ctx.window, _, _ = inputs
    ctx.needs_input, ctx.needs_weight = inputs[-2:]
    ctx.save_for_backward(grad_output, input, weight)


def _differentiate_backward(
    ctx: Any, grad_input: torch.Tensor, grad_weight: torch.Tensor
) -> Any:
    # Aggregation is linear in each tensor, so that its second derivatives
    # are the same two operators with the incoming gradients in their place.
    grad_output, input, weight = ctx.saved_tensors
    if not ctx.needs_input:
        grad_input = torch.zeros_like(input)
    if not ctx.needs_weight:
        grad_weight = torch.zeros_like(weight)
    forward = torch.ops.san.aggregation
    return (
        forward(grad_input, weight, *ctx.window)
        + forward(input, grad_weight, *ctx.window),
        *torch.ops.san.aggregation_backward(
            grad_output, grad_input, grad_weight, *ctx.window, True, True
        ),
        *(None for _ in (*ctx.window, "needs_input", "needs_weight")),
    )


define(
    f"aggregation(Tensor input, Tensor weight, {WINDOW_SCHEMA}) -> Tensor",
    _forward,
    fake=_empty_output,
    backward=_differentiate_forward,
    setup_context=_save_forward,
)
define(
    "aggregation_backward(Tensor grad_output, Tensor input, Tensor weight, "
    f"{WINDOW_SCHEMA}, bool needs_input, bool needs_weight) "
    "-> (Tensor, Tensor)",
    _backward,
    fake=_empty_grads,
    backward=_differentiate_backward,
    setup_context=_save_backward,
)
register_autocast("aggregation")
