"""The registered operators under pairwise attention.

Three differentiable operators on `features`, [N, F, H, W] with phi, psi and
beta of an image side by side (F = 2 R + M); none makes a tensor with K taps,
forward or backward. How they become an attention block with batch norms is in
`pairwise_attention`, the arithmetic is in cuda_kernels/pairwise/tasks.h.

Shape letters: N batch, R relation channels, G weight channels, M value
channels, F feature channels, K taps, H W image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import cuda_kernels
from san.ops.fused_call import (
    allows_tf32,
    compute_dtype,
    dense_image,
    like_image,
    matrix,
    run_fused,
)
from san.ops.registration import define
from san.ops.window import mirrored


def window_counts(
    size: int, kernel_size: int, device: torch.device | None = None
) -> Tensor:
    """How often output i shows pixel i + j - kernel_size // 2: [size, j].

    Reflect padding shows a pixel several times, but only pixels that the
    footprint holds anyway.
    """
    reach = kernel_size // 2
    output = torch.arange(size, device=device)[:, None]
    taps = torch.arange(-reach, reach + 1, device=device)
    pixel = mirrored(output + taps, size)
    counts = output.new_zeros((size, kernel_size), dtype=torch.float64)
    ones = counts.new_ones(1).expand(size, kernel_size)
    return counts.scatter_add(1, pixel - output + reach, ones)


def _image(features: Tensor) -> Tensor:
    """In float32 where the kernels do not read and write a half type."""
    image = dense_image(features)
    if image.device.type == "cpu" and not _in_pairs(features):
        image = image.to(compute_dtype(image.dtype))
    return image


def _in_pairs(features: Tensor) -> bool:
    """Whether the CPU rounds factors to bfloat16 and multiplies pairs."""
    return (
        features.device.type == "cpu"
        and features.dtype == torch.bfloat16
        and cuda_kernels.takes_bfloat16()
    )


def _workspace(
    kernel: str, image: Tensor, channels: Sequence[int], kernel_size: int
) -> Callable[[], int]:
    """What pairwise_<kernel> needs for R and G channels."""
    return lambda: cuda_kernels.pairwise_workspace(
        f"pairwise_{kernel}", image, *channels, kernel_size=kernel_size
    )


# ---- out = sum over taps of softmax(w2 relu(w1 a + table)) * beta, with
# a = relu(scale * (phi - psi) + shift). For a backward pass the logarithms of
# the softmax's denominators are kept, [N, G, H, W] in the dtype of the mapping,
# and the output.


def _core(features: Tensor, *mapping: Any) -> Tensor:
    return _attend(_image(features), None, *mapping).to(features.dtype)


def _recorded_core(features: Tensor, *mapping: Any) -> tuple[Tensor, Tensor]:
    image = _image(features)
    *_, w2, _ = mapping
    log_sum_exp = w2.new_empty((*image.shape[:3], w2.shape[0]))
    output = _attend(image, log_sum_exp, *mapping).to(features.dtype)
    return output, log_sum_exp.permute(0, 3, 1, 2)


def _attend(
    image: Tensor,
    log_sum_exp: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    table: Tensor,
    w1: Tensor,
    w2: Tensor,
    kernel_size: int,
) -> Tensor:
    value_channels = image.shape[3] - 2 * scale.shape[0]
    output = image.new_empty((*image.shape[:3], value_channels))
    run_fused(
        cuda_kernels.pairwise_forward,
        image,
        *map(matrix, (scale, shift, table, w1, w2)),
        output,
        log_sum_exp,
        kernel_size=kernel_size,
        allow_tf32=allows_tf32(),
    )
    return output.permute(0, 3, 1, 2)


def _fake_core(features: Tensor, scale: Tensor, *rest: Tensor | int) -> Tensor:
    batch, channels, height, width = features.shape
    output = features.new_empty(
        (batch, height, width, channels - 2 * scale.shape[0])
    )
    return output.permute(0, 3, 1, 2)


def _fake_recorded_core(
    features: Tensor, scale: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    *_, w2, _ = rest
    batch, _, height, width = features.shape
    log_sum_exp = w2.new_empty((batch, height, width, w2.shape[0]))
    return _fake_core(features, scale), log_sum_exp.permute(0, 3, 1, 2)


def _core_backward(
    grad_output: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    table: Tensor,
    w1: Tensor,
    w2: Tensor,
    kernel_size: int,
) -> tuple[Tensor, ...]:
    image = _image(features)
    mapping = [matrix(t) for t in (scale, shift, table, w1, w2)]
    grad_image = torch.empty_like(image)
    grads = [torch.empty_like(t) for t in mapping]
    run_fused(
        cuda_kernels.pairwise_backward,
        _image(grad_output),
        _image(output),
        dense_image(log_sum_exp),
        image,
        *mapping,
        grad_image,
        *grads,
        kernel_size=kernel_size,
        workspace=_workspace("backward", image, w2.shape[::-1], kernel_size),
    )
    return (
        grad_image.to(features.dtype).permute(0, 3, 1, 2),
        *(grad.flatten() for grad in grads[:2]),
        *(grad.flatten(0, 2) for grad in grads[2:]),
    )


def _fake_core_backward(
    grad_output: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    features: Tensor,
    *mapping: Any,
) -> tuple[Tensor, ...]:
    *tensors, _ = mapping
    return (like_image(features), *(torch.empty_like(t) for t in tensors))


# ---- Moments of c = a - centre over all pixels and taps.


def _moments(
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    centre: Tensor,
    kernel_size: int,
) -> tuple[Tensor, Tensor]:
    first, second = _fake_moments(features, scale, shift, centre, kernel_size)
    image = _image(features)
    run_fused(
        cuda_kernels.pairwise_moments,
        image,
        *map(matrix, (scale, shift, centre, first, second)),
        kernel_size=kernel_size,
        workspace=_workspace(
            "moments", image, (scale.shape[0], 1), kernel_size
        ),
    )
    return first, second


def _fake_moments(
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    centre: Tensor,
    kernel_size: int,
) -> tuple[Tensor, Tensor]:
    channels = scale.shape[0]
    return (
        scale.new_empty((kernel_size**2, channels), dtype=torch.float64),
        scale.new_empty((channels, channels), dtype=torch.float64),
    )


def _moments_backward(
    grad_first: Tensor,
    grad_second: Tensor,
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    centre: Tensor,
    kernel_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    # d(first, second) = grad_first + grad_second (a - centre), both ways.
    grad_second = grad_second + grad_second.T
    if _in_pairs(features):  # As the kernel rounds it, or it would not cancel.
        grad_second = grad_second.bfloat16().double()
    grad_first = grad_first - grad_second @ centre.double()
    image = _image(features)
    grad_image = torch.empty_like(image)
    grad_scale, grad_shift = torch.empty_like(scale), torch.empty_like(shift)
    run_fused(
        cuda_kernels.pairwise_moments_backward,
        matrix(grad_first.to(scale.dtype)),
        matrix(grad_second.to(scale.dtype)),
        image,
        matrix(scale),
        matrix(shift),
        grad_image,
        matrix(grad_scale),
        matrix(grad_shift),
        kernel_size=kernel_size,
        workspace=_workspace(
            "moments_backward", image, (scale.shape[0], 1), kernel_size
        ),
    )
    grad_features = grad_image.to(features.dtype).permute(0, 3, 1, 2)
    return grad_features, grad_scale, grad_shift


def _fake_moments_backward(
    grad_first: Tensor,
    grad_second: Tensor,
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    *rest: Tensor | int,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        like_image(features),
        torch.empty_like(scale),
        torch.empty_like(shift),
    )


# ---- Mean and biased variance of phi - psi over all pixels and taps.


def _difference_moments(
    features: Tensor, relation_channels: int, kernel_size: int
) -> tuple[Tensor, Tensor]:
    image = _image(features)
    means = image[..., : 2 * relation_channels].mean(
        (0, 1, 2), dtype=compute_dtype(image.dtype)
    )
    # Near the mean of the difference, so that the squares do not cancel.
    level = means[relation_channels:]
    centre = means[:relation_channels] - level
    sums = centre.new_empty((2, relation_channels), dtype=torch.float64)
    run_fused(
        cuda_kernels.pairwise_difference,
        image,
        *map(matrix, (centre, level, sums[0], sums[1])),
        kernel_size=kernel_size,
        workspace=_workspace(
            "difference", image, (relation_channels, 1), kernel_size
        ),
    )
    mean, square = sums / (image[..., 0].numel() * kernel_size**2)
    return mean + centre, square - mean**2


def _fake_difference_moments(
    features: Tensor, relation_channels: int, kernel_size: int
) -> tuple[Tensor, Tensor]:
    mean = features.new_empty((relation_channels,), dtype=torch.float64)
    return mean, torch.empty_like(mean)


def _difference_moments_backward(
    grad_mean: Tensor,
    grad_variance: Tensor,
    features: Tensor,
    mean: Tensor,
    kernel_size: int,
) -> Tensor:
    image = _image(features)
    count = image[..., 0].numel() * kernel_size**2
    slope = 2 * grad_variance / count
    constant = grad_mean / count - slope * mean
    grad_image = torch.empty_like(image)
    run_fused(
        cuda_kernels.pairwise_difference_backward,
        image,
        *(matrix(t.to(compute_dtype(image.dtype))) for t in (constant, slope)),
        grad_image,
        kernel_size=kernel_size,
    )
    return grad_image.to(features.dtype).permute(0, 3, 1, 2)


def _fake_difference_moments_backward(
    grad_mean: Tensor, grad_variance: Tensor, features: Tensor, *rest: Any
) -> Tensor:
    return like_image(features)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.kernel_size = inputs
    ctx.save_for_backward(*tensors)


def _save_attended(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.kernel_size = inputs
    ctx.save_for_backward(*output, *tensors)


def _save_difference(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    features, _, ctx.kernel_size = inputs
    ctx.save_for_backward(features, output[0])


def _differentiate_core(ctx: Any, grad_output: Tensor) -> Any:
    grads = torch.ops.san.pairwise_core_backward(
        grad_output, *ctx.saved_tensors, ctx.kernel_size
    )
    return (*grads, None)


def _differentiate_moments(ctx: Any, *grads: Tensor) -> Any:
    grads = torch.ops.san.pairwise_moments_backward(
        *grads, *ctx.saved_tensors, ctx.kernel_size
    )
    return (*grads, None, None)


def _differentiate_difference_moments(ctx: Any, *grads: Tensor) -> Any:
    grad = torch.ops.san.pairwise_difference_moments_backward(
        *grads, *ctx.saved_tensors, ctx.kernel_size
    )
    return grad, None, None


_TENSORS = "Tensor features, Tensor scale, Tensor shift"
_MAPPED = f"{_TENSORS}, Tensor table, Tensor w1, Tensor w2, int kernel_size"

define(
    f"pairwise_core_recorded({_MAPPED}) -> (Tensor output, Tensor log_sum_exp)",
    _recorded_core,
    fake=_fake_recorded_core,
)
define(
    f"pairwise_core({_MAPPED}) -> Tensor",
    _core,
    fake=_fake_core,
    backward=_differentiate_core,
    setup_context=_save_attended,
    recorded="pairwise_core_recorded",
)
define(
    "pairwise_core_backward(Tensor grad_output, Tensor output, "
    f"Tensor log_sum_exp, {_MAPPED}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _core_backward,
    fake=_fake_core_backward,
)
define(
    f"pairwise_moments({_TENSORS}, Tensor centre, int kernel_size) "
    "-> (Tensor, Tensor)",
    _moments,
    fake=_fake_moments,
    backward=_differentiate_moments,
    setup_context=_save_inputs,
    constants=("centre",),
)
define(
    f"pairwise_moments_backward(Tensor grad_first, Tensor grad_second, "
    f"{_TENSORS}, Tensor centre, int kernel_size) "
    "-> (Tensor, Tensor, Tensor)",
    _moments_backward,
    fake=_fake_moments_backward,
)
define(
    "pairwise_difference_moments(Tensor features, int relation_channels, "
    "int kernel_size) -> (Tensor, Tensor)",
    _difference_moments,
    fake=_fake_difference_moments,
    backward=_differentiate_difference_moments,
    setup_context=_save_difference,
)
define(
    "pairwise_difference_moments_backward(Tensor grad_mean, "
    "Tensor grad_variance, Tensor features, Tensor mean, int kernel_size) "
    "-> Tensor",
    _difference_moments_backward,
    fake=_fake_difference_moments_backward,
)
