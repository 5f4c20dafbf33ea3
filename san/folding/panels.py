"""Weights in the order in which the CPU's kernel reads them, kept.

The weight itself stays what people load, change and move; its panels are a
copy, made again after every change that PyTorch counts. Changes through
`.data` are not among these.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from san.fusion.rule import why_transformed
from san.ops import panels_of, takes_weight


class _Kept(NamedTuple):
    """Panels and what they were made of; a tensor that is held keeps its id."""

    weight: Tensor
    version: int
    data: int
    panels: Tensor


class Panels:
    """The panels of the weight of one layer."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def __reduce__(self) -> Any:
        """For copies and files, which hold other tensors: empty."""
        return Panels, ()

    def of(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """See san.ops.pointwise.panels_of; of the weight in a dtype."""
        kept = self._kept
        now = weight._version, weight.data_ptr()
        if (
            kept is None
            or kept.weight is not weight
            or (kept.version, kept.data) != now
            or kept.panels.dtype != dtype
        ):
            # Usable in any mode later.
            with torch.inference_mode(False), torch.no_grad():
                kept = _Kept(weight, *now, panels_of(weight.to(dtype)))
            self._kept = kept
        return kept.panels


def panel_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """What the kernel computes in for an image and a weight like these.

    None where it is not for them: it has no derivative, and compilers are to
    see PyTorch's own operators.
    """
    dtype = _product_dtype(x, weight)
    is_ours = (
        dtype is not None
        and type(x) is Tensor
        and type(weight) is Tensor
        and x.device == weight.device
        and takes_weight(weight, dtype)
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and not weight.is_inference()  # Which do not count their changes.
        and not (
            torch.is_grad_enabled()
            and (x.requires_grad or weight.requires_grad)
        )
        and not why_transformed()
    )
    return dtype if is_ours else None


def _product_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """What PyTorch multiplies them in on the CPU; None if it refuses to."""
    if torch.is_autocast_enabled("cpu"):
        # Which casts neither float64.
        if torch.float64 not in (x.dtype, weight.dtype):
            return torch.get_autocast_dtype("cpu")
    return x.dtype if x.dtype == weight.dtype else None
