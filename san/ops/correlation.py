"""Correlation: products of an image with each tap of another one's footprint.

The gradient of aggregation's weights, as an operator of its own: the same
compiled kernel computes dot products of vectors, of groups of channels, and
products channel by channel.

Shape letters: N batch, C channels, G groups, H W image, K taps of the
footprint, P output pixels.
"""

from operator import index
from typing import Any

import torch

import cuda_kernels
from san.ops.registration import (
    WINDOW_SCHEMA,
    define,
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
    """out[n,g,tap,p] = sum over c with c mod G = g of a[n,c,p] * b there.

    The products in the relations of "Exploring Self-attention for Image
    Recognition", CVPR 2020, sections 3.1 and 3.2: the Hadamard product with a
    group for each channel, the dot product with one group, a dot product for
    each head with as many. Channels are shared out interleaved, as
    aggregation shares weights. No tensor of taps is made, but the output.
    Differentiable in both tensors, in both modes and to every order; one call
    under vmap.

    Args:
      a: [N, C, H_out, W_out], one vector for each place of the window.
      b: [N, C, H, W]; in channels-last on the CPU it is read as it is.
      num_groups: G, a divisor of C.
      kernel_size: rows and columns of the footprint.
      stride: pixels between two places of the window.
      padding: pixels added to each side of b.
      dilation: pixels between two taps.
      padding_mode: "reflect" (as numpy.pad, for every size) or "zeros".

    Returns:
      [N, G, K, P], row-major, with K = kernel_size**2 taps row by row and
      P = H_out * W_out; H_out = (H + 2 * padding - dilation *
      (kernel_size - 1) - 1) // stride + 1 and W_out likewise.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    window = check_window(
        "correlation",
        Window(kernel_size, stride, padding, dilation, padding_mode),
    )
    check_image("correlation", "b", b, window)
    _check_centres(a, b, window)
    num_groups = _checked_groups(num_groups, b.shape[1])
    return torch.ops.san.correlation(a, b, num_groups, *window)


def _check_centres(a: Any, b: torch.Tensor, window: Window) -> None:
    check_tensor("correlation", "a", a)
    check_alike("correlation", "a", a, "b", b)
    expected = [*b.shape[:2], *map(window.output_size, b.shape[2:])]
    if list(a.shape) != expected:
        raise ValueError(
            f"correlation: a must have the shape [N, C, H_out, W_out] = "
            f"{expected}, got {list(a.shape)}"
        )


def _checked_groups(num_groups: Any, channels: int) -> int:
    try:
        groups = 0 if isinstance(num_groups, bool) else index(num_groups)
    except TypeError:
        groups = 0
    if groups >= 1 and channels % groups == 0:
        return groups
    raise ValueError(
        "correlation: num_groups must be an integer that divides the "
        f"{channels} channels of b, got {num_groups!r}"
    )


def _forward(
    a: torch.Tensor, b: torch.Tensor, num_groups: int, *window: Any
) -> torch.Tensor:
    output = _empty_output(a, b, num_groups, *window)
    memory_format = image_format(b)
    run_kernel(
        cuda_kernels.aggregation_backward,
        a.contiguous(memory_format=memory_format),
        b.contiguous(memory_format=memory_format),
        None,
        None,
        output,
        window=Window(*window),
    )
    return output


def _empty_output(
    a: torch.Tensor, b: torch.Tensor, num_groups: int, *window: Any
) -> torch.Tensor:
    batch, _, height, width = a.shape
    num_taps = Window(*window).num_taps
    return b.new_empty((batch, num_groups, num_taps, height * width))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    a, b, _, *ctx.window = inputs
    ctx.save_for_backward(a, b)


def _differentiate(ctx: Any, grad_output: torch.Tensor) -> Any:
    a, b = ctx.saved_tensors
    needs_a, needs_b, *_ = ctx.needs_input_grad
    grad_a = grad_b = None
    if needs_a:
        grad_a = torch.ops.san.aggregation(b, grad_output, *ctx.window)
    if needs_b:
        grad_b, _ = torch.ops.san.aggregation_backward(
            a, b, grad_output, *ctx.window, True, False
        )
    return grad_a, grad_b, None, *(None for _ in ctx.window)


def _push(
    tangents: Any, a: torch.Tensor, b: torch.Tensor, *rest: Any
) -> torch.Tensor:
    of_a, of_b, *_ = tangents
    pushed = [
        torch.ops.san.correlation(x, y, *rest)
        for x, y in ((of_a, b), (a, of_b))
        if x is not None and y is not None
    ]
    return pushed[0] if len(pushed) == 1 else pushed[0] + pushed[1]


define(
    f"correlation(Tensor a, Tensor b, int num_groups, {WINDOW_SCHEMA}) "
    "-> Tensor",
    _forward,
    fake=_empty_output,
    backward=_differentiate,
    setup_context=_save,
    jvp=_push,
    mixes_samples=False,
)
register_autocast("correlation")
