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
    both tensors, in both modes and to every order; one call under vmap.

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
    window = check_window(
        "aggregation",
        Window(kernel_size, stride, padding, dilation, padding_mode),
    )
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


# ---- Derivatives. The inner product of an output's gradient and the output is
# linear in each of three tensors: input, weight and that gradient. So all
# derivatives are the two operators again, other tensors in their places.


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


def _push_forward(
    tangents: Any, input: torch.Tensor, weight: torch.Tensor, *window: Any
) -> torch.Tensor | None:
    of_input, of_weight, *_ = tangents
    forward = torch.ops.san.aggregation
    return _sum(
        None if of_input is None else forward(of_input, weight, *window),
        None if of_weight is None else forward(input, of_weight, *window),
    )


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad_output, input, weight, *ctx.window, _, _ = inputs
    ctx.needs_input, ctx.needs_weight = inputs[-2:]
    ctx.save_for_backward(grad_output, input, weight)
    ctx.set_materialize_grads(False)


def _differentiate_backward(
    ctx: Any, of_input: torch.Tensor | None, of_weight: torch.Tensor | None
) -> Any:
    grad_output, input, weight = ctx.saved_tensors
    of_grads = (
        of_input if ctx.needs_input else None,
        of_weight if ctx.needs_weight else None,
    )
    needs_output, needs_input, needs_weight, *_ = ctx.needs_input_grad
    of_output = None
    if needs_output:
        of_output = _push_forward(of_grads, input, weight, *ctx.window)
    return (
        of_output,
        *_backward_in_part(
            grad_output,
            (input, weight),
            of_grads,
            ctx.window,
            needs_input,
            needs_weight,
        ),
        *(None for _ in (*ctx.window, "needs_input", "needs_weight")),
    )


def _push_backward(
    tangents: Any,
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    *window_and_needs: Any,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    *window, needs_input, needs_weight = window_and_needs
    of_output, of_input, of_weight, *_ = tangents
    both = input, weight
    needs = needs_input, needs_weight
    grads = _backward_in_part(
        grad_output, both, (of_input, of_weight), window, *needs
    )
    if of_output is None:
        return grads
    others = _backward_in_part(of_output, both, both, window, *needs)
    return _sum(grads[0], others[0]), _sum(grads[1], others[1])


def _backward_in_part(
    grad_output: torch.Tensor,
    tensors: tuple[torch.Tensor, torch.Tensor],
    replacements: tuple[torch.Tensor | None, torch.Tensor | None],
    window: Any,
    needs_input: bool,
    needs_weight: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Both gradients with other tensors in the places of input and weight.

    That of the input is a sum over the weight, and the other way round: each
    is None where the replacement that it needs is, or where it is not needed.
    """
    of_input, of_weight = replacements
    needs_input = needs_input and of_weight is not None
    needs_weight = needs_weight and of_input is not None
    if not needs_input and not needs_weight:
        return None, None
    grads = torch.ops.san.aggregation_backward(
        grad_output,
        # For its shape alone where there is no replacement.
        tensors[0] if of_input is None else of_input,
        tensors[1] if of_weight is None else of_weight,
        *window,
        needs_input,
        needs_weight,
    )
    return grads[0] if needs_input else None, grads[1] if needs_weight else None


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


define(
    f"aggregation(Tensor input, Tensor weight, {WINDOW_SCHEMA}) -> Tensor",
    _forward,
    fake=_empty_output,
    backward=_differentiate_forward,
    setup_context=_save_forward,
    jvp=_push_forward,
    mixes_samples=False,
)
define(
    "aggregation_backward(Tensor grad_output, Tensor input, Tensor weight, "
    f"{WINDOW_SCHEMA}, bool needs_input, bool needs_weight) "
    "-> (Tensor, Tensor)",
    _backward,
    fake=_empty_grads,
    backward=_differentiate_backward,
    setup_context=_save_backward,
    jvp=_push_backward,
    mixes_samples=False,
)
register_autocast("aggregation")
