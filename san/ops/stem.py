"""The stem of a network: 1x1 convolution, batch norm, ReLU, 2x2 max pooling.

As one operator: the convolution's output, the largest tensor of a network, is
never made, neither for the result nor for any gradient. The statistics of the
norm follow from the mean and covariance of the few channels of the images.

Shape letters: N batch, I input channels, C channels, H W image.
"""

from typing import Any

import torch
from torch import Tensor, nn

import cuda_kernels
from san.norms import Moments, scale_and_shift
from san.ops.fused_call import (
    dense_image,
    matrix,
    run_fused,
    without_autocast,
)
from san.ops.registration import define


def stem(images: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Y = max over 2 x 2 pixels of max(0, norm(conv(images))).

    Source: "Exploring Self-attention for Image Recognition", CVPR 2020,
    section 3.4, with the pooling of the stage that follows.

    Args:
      images: [N, I, H, W].
      conv: 1x1 convolution of I to C channels without bias.
      norm: of C channels; in training mode it uses and tracks the statistics
        of the convolution, as its own forward would those of its input.

    Returns:
      [N, C, H // 2, W // 2] in channels-last.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    _check(images, conv, norm)
    dtype = images.dtype
    compute = torch.promote_types(dtype, torch.float32)
    with without_autocast(images):
        x = images.to(compute)
        weight = conv.weight.flatten(1).double()
        scale, shift = scale_and_shift(
            norm, lambda: _moments(x, weight), torch.float64
        )
        return torch.ops.san.stem(
            x, (weight * scale[:, None]).to(compute), shift.to(compute)
        ).to(dtype)


def _moments(x: Tensor, weight: Tensor) -> Moments:
    """Of the convolution: linear in the mean and covariance of x."""
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = pixels.mean(0)
    deviations = pixels - mean
    covariance = deviations.T @ deviations / pixels.shape[0]
    variance = ((weight @ covariance) * weight).sum(1)
    return Moments(pixels.shape[0], weight @ mean, variance)


def _forward(x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    output = _fake_forward(x, weight, shift)
    run_fused(
        cuda_kernels.stem_forward,
        dense_image(x),
        matrix(weight),
        matrix(shift),
        output.permute(0, 2, 3, 1),
    )
    return output


def _fake_forward(x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    output = x.new_empty((batch, height // 2, width // 2, len(weight)))
    return output.permute(0, 3, 1, 2)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, shift: Tensor, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    image = dense_image(x)
    grad_image = image.new_empty(image.shape if needs_x else (0, 0, 0, 0))
    grad_weight, grad_shift = (
        torch.empty_like(t, dtype=torch.float64) for t in (weight, shift)
    )
    channels, inputs = weight.shape
    run_fused(
        cuda_kernels.stem_backward,
        dense_image(grad),
        image,
        matrix(weight),
        matrix(shift),
        grad_image if needs_x else None,
        matrix(grad_weight),
        matrix(grad_shift),
        workspace=lambda: cuda_kernels.norm_relu_workspace(
            inputs + 1, channels
        ),
    )
    return (
        grad_image.permute(0, 3, 1, 2),
        grad_weight.to(weight.dtype),
        grad_shift.to(shift.dtype),
    )


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, shift: Tensor, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    image = x.permute(0, 2, 3, 1)
    grad_image = image.new_empty(image.shape if needs_x else (0, 0, 0, 0))
    return (
        grad_image.permute(0, 3, 1, 2),
        torch.empty_like(weight),
        torch.empty_like(shift),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> Any:
    needs_x = ctx.needs_input_grad[0]
    grads = torch.ops.san.stem_backward(grad, *ctx.saved_tensors, needs_x)
    return grads[0] if needs_x else None, *grads[1:]


define(
    "stem(Tensor x, Tensor weight, Tensor shift) -> Tensor",
    _forward,
    fake=_fake_forward,
    backward=_differentiate,
    setup_context=_save,
)
define(
    "stem_backward(Tensor grad, Tensor x, Tensor weight, Tensor shift, "
    "bool needs_x) -> (Tensor, Tensor, Tensor)",
    _backward,
    fake=_fake_backward,
)


def _check(images: Any, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    if not isinstance(images, Tensor) or images.dim() != 4:
        got = list(images.shape) if isinstance(images, Tensor) else images
        raise ValueError(
            f"stem: images must be a tensor [N, I, H, W], got {got!r}"
        )
    if images.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"stem: images must be on the CPU or CUDA, got {images.device}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"stem: images must be of a floating type, got {images.dtype}"
        )
    sizes = conv.kernel_size, conv.stride, conv.groups
    is_padded = conv.padding not in ((0, 0), "same", "valid")
    if sizes != ((1, 1), (1, 1), 1) or is_padded or conv.bias is not None:
        raise ValueError(
            "stem: conv must be a 1x1 convolution without bias, stride, "
            f"padding or groups, got {conv}"
        )
    if norm.num_features != conv.weight.shape[0]:
        raise ValueError(
            f"stem: norm must have the {conv.weight.shape[0]} channels of conv, "
            f"got {norm.num_features}"
        )
    if conv.weight.shape[1] != images.shape[1]:
        raise ValueError(
            f"stem: images must have the {conv.weight.shape[1]} channels of conv, "
            f"got {images.shape[1]}"
        )
