"""How far a result lies from the reference."""

import math
from collections.abc import Callable
from typing import Any

import torch

# Of a tensor of the reference, beside the largest of its tensors. A gradient
# that cancels (of a bias before a softmax, say) is rounding and nothing else;
# beside the others it is small, and counts as such.
_SMALLEST_SCALE = 1e-3


def largest_error(result: Any, reference: Any) -> float:
    """Largest difference relative to the largest value of a reference.

    Args:
      result: a tensor, or a sequence of them.
      reference: likewise, of the same shapes.

    Returns:
      The error of the worst tensor; infinite where shapes differ or a
      result is not finite.
    """
    return _worst(result, reference, lambda t: t.abs().max().item())


def norm_error(result: Any, reference: Any) -> float:
    """Norm of the difference relative to the norm of a reference.

    For gradients through a ReLU: of millions of values a few lie so near to
    its kink that rounding decides, which this forgives. Takes and returns
    what largest_error does.
    """
    return _worst(result, reference, lambda t: t.norm().item())


def _worst(
    result: Any, reference: Any, size: Callable[[torch.Tensor], float]
) -> float:
    results, references = _tensors(result), _tensors(reference)
    if [t.shape for t in results] != [t.shape for t in references]:
        return math.inf
    scales = [size(t) for t in references]
    least = _SMALLEST_SCALE * max(scales)
    errors = [
        size(a.double() - b.double()) / (max(scale, least) or 1.0)
        for a, b, scale in zip(results, references, scales, strict=True)
    ]
    return max(e if math.isfinite(e) else math.inf for e in errors)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
