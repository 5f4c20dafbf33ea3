"""How far a result lies from the reference."""

import math
from collections.abc import Callable
from typing import Any

import torch

# Of a tensor of the reference, beside the largest of its tensors. A gradient
# that cancels (of a bias before a softmax, say) is rounding and nothing else;
# beside the others it is small, and counts as such.
_SMALLEST_SCALE = 1e-3
_VALUE_FACTOR = 1e3


def largest_error(result: Any, reference: Any) -> float:
    """Largest difference relative to the largest value of a reference.

    Args:
      result: a tensor, or a sequence of them.
      reference: likewise, of the same shapes.

    Returns:
      The error of the worst tensor; infinite where shapes differ or a
      result is not finite.
    """
    return max(_relative(result, reference, lambda t: t.abs().max().item()))


def step_error(result: Any, reference: Any) -> float:
    """Of a value and its gradients: [value, *gradients].

    Where a ReLU's input lies so near to its kink that rounding decides, the
    value moves by nothing but its gradient jumps, and with it those of all
    parameters before: one of 10**7 such inputs is worth 1e-3. Gradients are
    therefore judged by the root mean square, over the tensors, of the norm of
    the difference relative to the reference's; the value, which has no such
    excuse, by _VALUE_FACTOR times its own.

    Args:
      result: as many tensors.
      reference: likewise, of the same shapes.

    Returns:
      The larger of the two; infinite where shapes differ or a result is not
      finite.
    """
    value, *gradients = _relative(result, reference, _norm)
    mean_square = sum(e * e for e in gradients) / max(len(gradients), 1)
    return max(_VALUE_FACTOR * value, math.sqrt(mean_square))


def _norm(tensor: torch.Tensor) -> float:
    return tensor.norm().item()


def _relative(
    result: Any, reference: Any, size: Callable[[torch.Tensor], float]
) -> list[float]:
    """The error of each tensor."""
    results, references = _tensors(result), _tensors(reference)
    if [t.shape for t in results] != [t.shape for t in references]:
        return [math.inf]
    scales = [size(t) for t in references]
    # What cancels exactly is rounding and nothing else: it counts beside the
    # others. A loss is no gradient, so it sets no scale.
    least = _SMALLEST_SCALE * max(scales[1:] or scales)
    errors = [
        size(a.double() - b.double()) / (max(scale, least) or 1.0)
        for a, b, scale in zip(results, references, scales, strict=True)
    ]
    return [e if math.isfinite(e) else math.inf for e in errors]


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
