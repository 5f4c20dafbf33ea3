"""Batch norm, ReLU and what follows them, without keeping what they make.

Between two attention blocks stand batch norms, ReLUs, poolings and 1x1
convolutions. Here each run of them is one operator that saves its input alone
and computes the rest again in its backward pass, in half the passes over
memory that the layers one by one take.

Shape letters: N batch, C channels, O output channels, H W image. Images are
fastest in channels-last, and so are the results.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from san.norms import Moments, current_moments, group_of
from san.ops.norm_relu_core import Norm


def norm_relu(x: Tensor, norm: nn.BatchNorm2d, pool: int = 1) -> Tensor:
    """Computes the max over pool x pool pixels of max(0, norm(x)).

    Args:
      x: [N, C, H, W].
      norm: of C channels; in training mode it uses and tracks the statistics
        of x, a SyncBatchNorm, torch's or ours, those of its processes.
      pool: 1 or 2; rows and columns that do not fill a window are left out.

    Returns:
      [N, C, H // pool, W // pool] in channels-last.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    _check("norm_relu", x, norm, pool)
    return torch.ops.san.norm_relu(x, *_norm_of(x, norm), pool)


def norm_relu_linear(
    x: Tensor,
    norm: nn.BatchNorm2d,
    weight: Tensor | Sequence[Tensor],
    bias: Tensor | Sequence[Tensor] | None,
    residual: Tensor | None = None,
    pool: int = 1,
) -> Tensor:
    """Computes weight max(0, norm(x)) + bias + residual at every pixel.

    Args:
      x: [N, C, H, W].
      norm: as for norm_relu.
      weight: [O, C] or [O, C, 1, 1]; or several such, whose outputs come
        side by side and which are never kept as one.
      bias: [O] or None; or one for each weight.
      residual: of the shape of the result, or None.
      pool: as for norm_relu, of max(0, norm(x)).

    Returns:
      [N, O, H // pool, W // pool] in channels-last; in autocast of its dtype,
      promoted with that of residual.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    _check("norm_relu_linear", x, norm, pool)
    weights, biases = _matrices(x, weight, bias)
    dtype, kind = weights[0].dtype, x.device.type
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    return torch.ops.san.norm_relu_linear(
        x,
        *_norm_of(x, norm),
        pool,
        weights,
        biases,
        dtype,
        residual,
    )


def _matrices(
    x: Tensor,
    weight: Tensor | Sequence[Tensor],
    bias: Tensor | Sequence[Tensor] | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and biases of norm_relu_linear, as many of both."""
    weights = [weight] if isinstance(weight, Tensor) else list(weight)
    for matrix in weights:
        if matrix.numel() != len(matrix) * x.shape[1]:
            raise ValueError(
                f"norm_relu_linear: weight must have the {x.shape[1]} "
                f"channels of x as its columns, got {list(matrix.shape)}"
            )
    if bias is None:
        bias = [matrix.new_zeros(len(matrix)) for matrix in weights]
    biases = [bias] if isinstance(bias, Tensor) else list(bias)
    sizes = [len(matrix) for matrix in weights]
    if [b.numel() for b in biases] != sizes:
        raise ValueError(
            f"norm_relu_linear: bias must have the {sizes} rows of weight, "
            f"got {[b.numel() for b in biases]}"
        )
    return weights, biases


@torch.no_grad()
def _statistics(x: Tensor, norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and share."""

    def moments() -> Moments:
        if x.numel() == 0:  # The kernel wants a pixel.
            none = x.new_zeros(x.shape[1], dtype=torch.float64)
            return Moments(0, none, none)
        mean, variance = torch.ops.san.channel_moments(x)
        return Moments(x.numel() // x.shape[1], mean, variance)

    size, mean, variance = current_moments(norm, moments)
    if isinstance(size, Tensor):
        share = 1 / size.double()
    else:
        share = mean.new_full((), 1 / size if size else 0, dtype=torch.float64)
    return mean, variance, share


def _norm_of(x: Tensor, norm: Any) -> Norm:
    mean, variance, share = _statistics(x, norm)
    gamma, beta = norm.weight, norm.bias
    if gamma is None:
        gamma = torch.ones_like(mean)
    if beta is None:
        beta = torch.zeros_like(mean)
    group = group_of(norm)
    name = "" if group is None else group.group_name
    return Norm(gamma, beta, mean, variance, share, norm.eps, name)


def _check(op: str, x: Any, norm: Any, pool: Any) -> None:
    if not isinstance(x, Tensor) or x.dim() != 4:
        got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{op}: x must be a tensor [N, C, H, W], got {got}")
    if x.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{op}: x must be on the CPU or CUDA, got {x.device}")
    if norm.num_features != x.shape[1]:
        raise ValueError(
            f"{op}: norm must have the {x.shape[1]} channels of x, "
            f"got {norm.num_features}"
        )
    if pool not in (1, 2):
        raise ValueError(f"{op}: pool must be 1 or 2, got {pool!r}")
