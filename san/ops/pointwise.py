"""1x1 convolutions for inference on the CPU, with what stands around them.

The norm and the ReLU before a convolution, its bias and the sum that it is
added to take no pass over memory of their own; and the weight comes in the
order in which the kernel reads it. float32 and float64. The loops are in
cuda_kernels/pointwise/rows.cc.

Shape letters: N batch, C channels, O output channels, H W image.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

import cuda_kernels
from san.ops.fused_call import dense_image, matrix, run_fused
from san.ops.registration import define

_REMEDY = "differentiate the network before san.fold_for_inference"


def panels_of(weight: Tensor) -> Tensor:
    """A weight as the operators take it.

    Args:
      weight: [O, C].

    Returns:
      [1, ceil(O / 32), C, 32], the rows of the weight and then zeros.
    """
    rows, channels = weight.shape
    width = cuda_kernels.POINTWISE_PANEL
    full = F.pad(weight, (0, 0, 0, -rows % width))
    panels = full.view(1, full.shape[0] // width, width, channels)
    return panels.transpose(2, 3).contiguous()


def _vector(v: Tensor | None) -> Tensor | None:
    return None if v is None else matrix(v)


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
        _vector(scale),
        _vector(shift),
        panels.detach().contiguous(),
        _vector(bias),
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
