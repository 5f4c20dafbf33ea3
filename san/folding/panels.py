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

    def of(self, weight: Tensor) -> Tensor:
        """See san.ops.pointwise.panels_of."""
        kept = self._kept
        now = weight._version, weight.data_ptr()
        if (
            kept is None
            or kept.weight is not weight
            or (kept.version, kept.data) != now
        ):
            # Usable in any mode later.
            with torch.inference_mode(False), torch.no_grad():
                kept = _Kept(weight, *now, panels_of(weight))
            self._kept = kept
        return kept.panels


def takes_panels(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel is for an image and a weight like these.

    It has no derivative, and compilers are to see PyTorch's own operators.
    """
    return (
        type(x) is Tensor
        and type(weight) is Tensor
        and x.dtype == weight.dtype
        and x.device == weight.device
        and takes_weight(weight)
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and not weight.is_inference()  # Which do not count their changes.
        and not torch.is_autocast_enabled("cpu")
        and not (
            torch.is_grad_enabled()
            and (x.requires_grad or weight.requires_grad)
        )
        and not why_transformed()
    )
