"""1x1 convolutions for inference on the CPU, with what stands around them.

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
from torch.nn import functional as F

import cuda_kernels
from san.ops.fused_call import (
    compute_dtype,
    dense_image,
    matrix,
    run_fused,
)
from san.ops.registration import define

_REMEDY = "differentiate the network before san.fold_for_inference"


def takes_weight(weight: Tensor) -> bool:
    """Whether the operators take panels of a weight [O, C]."""
    if weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return weight.shape[1] <= 2048 and cuda_kernels.takes_bfloat16()
    return weight.dtype in (torch.float32, torch.float64)


def panels_of(weight: Tensor) -> Tensor:
    """A weight as the operators take it.

    Args:
      weight: [O, C].

    Returns:
      [1, ceil(O / 32), C, 32], the rows of the weight and then zeros; in
      bfloat16 [1, ceil(O / 32), ceil(C / 2), 64], with pairs of columns side
      by side.
    """
    rows, channels = weight.shape
    width = cuda_kernels.POINTWISE_PANEL
    step = 2 if weight.dtype == torch.bfloat16 else 1
    full = F.pad(weight, (0, -channels % step, 0, -rows % width))
    panels = full.unflatten(1, (-1, step)).unflatten(0, (-1, width))
    return panels.transpose(1, 2).flatten(2).contiguous()[None]


def _vector(v: Tensor | None, x: Tensor) -> Tensor | None:
    return None if v is None else matrix(v.to(compute_dtype(x.dtype)))


def _pointwise(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    panels: Tensor,
    bias: Tensor | None,
    channels: int,
) -> Tensor:
    image = dense_image(x)
    y = image.new_empty((*image.shape[:3], channels))
    run_fused(
        cuda_kernels.pointwise_forward,
        image,
        _vector(scale, x),
        _vector(shift, x),
        panels.detach().contiguous(),
        _vector(bias, x),
        y,
        relu=scale is not None,
    )
    return y.permute(0, 3, 1, 2)


def _fake_pointwise(x: Tensor, *rest: Any) -> Tensor:
    batch, _, height, width = x.shape
    y = x.new_empty((batch, height, width, rest[-1]))
    return y.permute(0, 3, 1, 2)


def _pointwise_add(y: Tensor, x: Tensor, panels: Tensor) -> None:
    run_fused(
        cuda_kernels.pointwise_forward,
        dense_image(x),
        None,
        None,
        panels.detach().contiguous(),
        None,
        y.detach().permute(0, 2, 3, 1),
        relu=True,
        add=True,
    )


def _fake_pointwise_add(y: Tensor, x: Tensor, panels: Tensor) -> None:
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
# y += weight max(0, x), of a y [N, O, H, W] that is dense in channels-last.
define(
    "pointwise_add_(Tensor(a!) y, Tensor x, Tensor panels) -> ()",
    _pointwise_add,
    fake=_fake_pointwise_add,
    remedy=_REMEDY,
)
