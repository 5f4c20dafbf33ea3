"""1x1 convolutions on the CPU, with what stands around them.

The norm and the ReLU before a convolution, its bias and the sum that it is
added to take no pass over memory of their own; and the weight comes in the
order in which the kernel reads it. float32, float64, and bfloat16 where the
processor multiplies pairs of it. The loops are in
cuda_kernels/pointwise/rows.cc.

Shape letters: N batch, C channels, O output channels, H W image.
"""

from typing import Any

import torch
from torch import Tensor

import cuda_kernels
from san.ops.fused_call import (
    compute_dtype,
    dense_image,
    matrix,
    run_fused,
)
from san.ops.registration import define

_REMEDY = "differentiate the network before san.fold_for_inference"


def takes_weight(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the operators take panels of a weight [O, C] in a dtype."""
    if weight.device.type != "cpu":
        return False
    if dtype == torch.bfloat16:
        return weight.shape[1] <= 2048 and cuda_kernels.takes_bfloat16()
    return dtype in (torch.float32, torch.float64)


def panels_of(weight: Tensor, transposed: bool = False) -> Tensor:
    """A weight as the operators take it.

    Args:
      weight: [O, C].
      transposed: whether it is [C, O] instead.

    Returns:
      [1, ceil(O / 32), C, 32], the rows of the weight and then zeros; in
      bfloat16 [1, ceil(O / 32), ceil(C / 2), 64], with pairs of columns side
      by side.
    """
    rows, channels = reversed(weight.shape) if transposed else weight.shape
    width = cuda_kernels.POINTWISE_PANEL
    step = 2 if weight.dtype == torch.bfloat16 else 1
    shape = (1, -(-rows // width), -(-channels // step), step * width)
    panels = weight.new_empty(shape)
    run_fused(
        cuda_kernels.pointwise_panels,
        matrix(weight),
        panels,
        transposed=transposed,
    )
    return panels


def _vector(v: Tensor | None, x: Tensor) -> Tensor | None:
    return None if v is None else matrix(v.to(compute_dtype(x.dtype)))


def _vectors(
    affine: tuple[Tensor, Tensor] | None, x: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    if affine is None:
        return None, None
    return _vector(affine[0], x), _vector(affine[1], x)


def run_pointwise(
    image: Tensor,
    panels: Tensor,
    channels: int,
    *,
    affine: tuple[Tensor, Tensor] | None = None,
    bias: Tensor | None = None,
    addend: Tensor | None = None,
) -> Tensor:
    """Computes weight f(image) + bias + addend below autograd.

    Args:
      image: [N, H, W, C], dense, on the CPU.
      panels: of the weight [O, C]; see panels_of.
      channels: O.
      affine: scale [C] and shift [C]: f is max(0, scale * x + shift). None
        for the identity.
      bias: [O] or None.
      addend: [N, H, W, O], dense, or None.

    Returns:
      [N, H, W, O].
    """
    y = image.new_empty((*image.shape[:3], channels))
    run_fused(
        cuda_kernels.pointwise_forward,
        image,
        *_vectors(affine, image),
        panels.detach().contiguous(),
        _vector(bias, image),
        y,
        relu=affine is not None,
        addend=addend,
    )
    return y


def run_gradient(
    grad: Tensor,
    image: Tensor,
    affine: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the weight [O, C] and the bias [O], below autograd.

    Args:
      grad: of the result [N, H, W, O].
      image: [N, H, W, C], of the same dtype.
      affine: as for run_pointwise.

    Returns:
      In float32 of bfloat16, else in the same dtype.
    """
    outputs, channels = grad.shape[3], image.shape[3]
    dtype = compute_dtype(grad.dtype)
    of_weight = grad.new_empty((1, 1, outputs, channels), dtype=dtype)
    of_bias = grad.new_empty((1, 1, 1, outputs), dtype=dtype)
    run_fused(
        cuda_kernels.pointwise_gradient,
        image,
        *_vectors(affine, image),
        grad,
        of_weight,
        of_bias,
    )
    return of_weight[0, 0], of_bias.flatten()


def _pointwise(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    panels: Tensor,
    bias: Tensor | None,
    channels: int,
) -> Tensor:
    affine = None if scale is None or shift is None else (scale, shift)
    image = dense_image(x)
    y = run_pointwise(image, panels, channels, affine=affine, bias=bias)
    return y.permute(0, 3, 1, 2)


def _fake_pointwise(x: Tensor, *rest: Any) -> Tensor:
    batch, _, height, width = x.shape
    y = x.new_empty((batch, height, width, rest[-1]))
    return y.permute(0, 3, 1, 2)


def _pointwise_add(
    y: Tensor, x: Tensor, shift: Tensor | None, panels: Tensor
) -> None:
    image = y.detach().permute(0, 2, 3, 1)
    shift = _vector(shift, x)
    run_fused(
        cuda_kernels.pointwise_forward,
        dense_image(x),
        None if shift is None else torch.ones_like(shift),
        shift,
        panels.detach().contiguous(),
        None,
        image,
        relu=True,
        addend=image,
    )


def _fake_pointwise_add(y: Tensor, *rest: Any) -> None:
    pass


# weight f(x) + bias, [N, O, H, W] in channels-last, O being `channels`. f is
# max(0, scale * x + shift), or the identity where both are None.
define(
    "pointwise(Tensor x, Tensor? scale, Tensor? shift, Tensor panels, "
    "Tensor? bias, int channels) -> Tensor",
    _pointwise,
    fake=_fake_pointwise,
    remedy=_REMEDY,
)
# y += weight max(0, x + shift), of a y [N, O, H, W] that is dense in
# channels-last.
define(
    "pointwise_add_(Tensor(a!) y, Tensor x, Tensor? shift, Tensor panels) "
    "-> ()",
    _pointwise_add,
    fake=_fake_pointwise_add,
    remedy=_REMEDY,
)
