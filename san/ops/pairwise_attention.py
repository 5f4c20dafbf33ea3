"""Pairwise attention between the three 1x1 convolutions and its output.

Relation, mapping with its batch norms, softmax and aggregation as one
function of small tensors, so that nothing with K taps is ever made: not for
the output, not for the batch statistics, not for any gradient. The operators
underneath are in `pairwise_core`; what is here is ordinary PyTorch on tensors
of at most K x R elements.

Shape letters: N batch, R relation channels, G weight channels, M value
channels, F = 2 R + M feature channels, K taps, H W image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.norms import Moments, scale_and_shift
from san.ops import pairwise_core
from san.ops.fused_call import without_autocast
from san.ops.mapping import mapping_layers
from san.ops.positions import offsets

_OP = "pairwise_attention"
# Float64 elements of the shared memory that a block of any GPU with compute
# capability 8.0 or more can ask for, 99 KiB, less 3 KiB for what is small.
_SHARED_ELEMENTS = 96 * 1024 // 8


def pairwise_attention(
    features: Tensor,
    position: nn.Conv2d | None,
    mapping: nn.Sequential,
    kernel_size: int,
) -> Tensor:
    """y_i = sum over the footprint of softmax(gamma(delta_ij)) * beta_j.

    delta_ij joins phi_i - psi_j and the difference of the two positions, each
    transformed by `position`, if there is one. Source: "Exploring
    Self-attention for Image Recognition", CVPR 2020, section 3.1. Reflect
    padding. In training mode the batch norms use and track the statistics of
    the K taps exactly.

    Args:
      features: [N, 2 R + M, H, W]: phi, psi and beta side by side. Fastest
        in channels-last.
      position: 1x1 convolution of 2 channels (column, row) to 2; or None.
      mapping: gamma: BN(R + 2), ReLU, 1x1 without bias to R, BN(R), ReLU,
        1x1 to G; M is a multiple of G. Without positions R in place of R + 2.
      kernel_size: rows and columns of the footprint; odd.

    Returns:
      [N, M, H, W] in channels-last.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    _check(features, position, mapping, kernel_size)
    with without_autocast(features):
        return _attend(features, position, mapping, kernel_size)


def fits_pairwise(
    device: torch.device,
    relation_channels: int,
    weight_channels: int,
    value_channels: int,
    kernel_size: int,
) -> bool:
    """Whether the kernels for this device surely have room for R, G, M and k.

    On CUDA the smallest tile of the backward pass, one pixel at four taps,
    has five buffers of four rows and a few single ones in shared memory.
    """
    widest = max(relation_channels, weight_channels)
    elements = 24 * widest + value_channels + kernel_size
    return device.type != "cuda" or elements <= _SHARED_ELEMENTS


def _attend(
    features: Tensor,
    position: nn.Conv2d | None,
    mapping: nn.Sequential,
    kernel_size: int,
) -> Tensor:
    (bn1, bn2), _, (conv1, conv2) = mapping_layers(_OP, mapping, 2)
    dtype = pairwise_core.compute_dtype(features.dtype)
    relation = bn2.num_features
    w1 = conv1.weight.flatten(1).double()
    steps = _position_differences(position, features, kernel_size)
    scale, shift = _first_norm(bn1, features, steps, kernel_size)
    differences, positions = slice(0, relation), slice(relation, None)
    table = F.relu(steps * scale[positions] + shift[positions])
    table = table @ w1[:, positions].T
    w1, scale, shift = (
        w1[:, differences],
        scale[differences],
        shift[differences],
    )
    inner = (features, scale.to(dtype), shift.to(dtype))
    # Near the mean of a where phi - psi is normalised: its moments about this
    # do not cancel.
    centre = torch.zeros_like(scale)
    if bn1.bias is not None:
        centre = bn1.bias[differences]
    scale2, shift2 = _second_norm(
        bn2, inner, F.relu(centre), w1, table, kernel_size
    )
    # The softmax does not see a bias; the product keeps it in the graph.
    w2 = conv2.weight.flatten(1).to(dtype)
    if conv2.bias is not None:
        w2 = w2 + 0 * conv2.bias.to(dtype)[:, None]
    return torch.ops.san.pairwise_core(
        *inner,
        (table * scale2 + shift2).to(dtype),
        (w1 * scale2[:, None]).to(dtype),
        w2,
        kernel_size,
    )


def _position_differences(
    position: nn.Conv2d | None, features: Tensor, kernel_size: int
) -> Tensor:
    """conv_p(position of i) - conv_p(position of j) for each offset: [K, 2].

    [K, 0] without positions.

    Positions are linear, so that only the offset matters; and a mirrored tap
    shows a pixel that some other offset of the footprint shows too.
    """
    there = offsets(features, kernel_size)
    if position is None:
        return there[:, :0]
    weight = position.weight.flatten(1).double()
    bias = None if position.bias is None else position.bias.double()
    here = torch.zeros_like(there)
    return F.linear(here, weight, bias) - F.linear(there, weight, bias)


def _tap_shares(features: Tensor, kernel_size: int) -> Tensor:
    """The share of each offset among all taps of all pixels: [K, 1]."""
    rows, columns = (
        pairwise_core.window_counts(size, kernel_size, features.device).sum(0)
        for size in features.shape[2:]
    )
    shares = (rows[:, None] * columns).flatten()
    return (shares / shares.sum())[:, None]


def _first_norm(
    bn: Any, features: Tensor, steps: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """Scale and shift of the norm of phi - psi and the positions."""

    def moments() -> Moments:
        differences = torch.ops.san.pairwise_difference_moments(
            features, bn.num_features - steps.shape[1], kernel_size
        )
        shares = _tap_shares(features, kernel_size)
        mean = (shares * steps).sum(0)
        variance = (shares * (steps - mean) ** 2).sum(0)
        return Moments(
            _num_taps(features, kernel_size),
            torch.cat([differences[0], mean]),
            torch.cat([differences[1], variance]),
        )

    return scale_and_shift(bn, moments, torch.float64)


def _second_norm(
    bn: Any,
    inner: tuple[Tensor, Tensor, Tensor],
    centre: Tensor,
    w1: Tensor,
    table: Tensor,
    kernel_size: int,
) -> tuple[Tensor, Tensor]:
    """Scale and shift [R] of the norm of h = w1 a + table.

    Its moments follow from those of a, at all offsets together and at each.
    """

    def moments() -> Moments:
        count = _num_taps(inner[0], kernel_size)
        about = centre.detach().to(inner[1].dtype)
        sums = torch.ops.san.pairwise_moments(*inner, about, kernel_size)
        first, second = (total / count for total in sums)
        shares = _tap_shares(inner[0], kernel_size)
        mean_a, mean_table = first.sum(0), (shares * table).sum(0)
        covariance = second - mean_a[:, None] * mean_a
        offsets = table - mean_table
        joint = (first - shares * mean_a) @ w1.T
        mean = w1 @ (mean_a + about.double()) + mean_table
        variance = ((w1 @ covariance) * w1).sum(1) + (
            2 * joint * offsets + shares * offsets**2
        ).sum(0)
        return Moments(count, mean, variance.clamp(min=0))

    return scale_and_shift(bn, moments, torch.float64)


def _num_taps(features: Tensor, kernel_size: int) -> int:
    batch, _, height, width = features.shape
    return batch * height * width * kernel_size**2


def _check(
    features: Any,
    position: nn.Conv2d | None,
    mapping: nn.Sequential,
    kernel_size: Any,
) -> None:
    if not isinstance(features, Tensor):
        _fail("features", "be a torch.Tensor", type(features).__name__)
    if features.dim() != 4:
        _fail("features", "have 4 dimensions", f"{features.dim()}")
    if features.dtype not in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
    ):
        _fail(
            "features",
            "be float32, float64, float16 or bfloat16",
            f"{features.dtype}",
        )
    if features.device.type not in ("cpu", "cuda"):
        _fail("features", "be on the CPU or a GPU", f"{features.device}")
    height, width = features.shape[2:]
    if height < 1 or width < 1:
        _fail(
            "features",
            "have a height and a width of at least 1",
            f"shape {list(features.shape)}",
        )
    if (
        not isinstance(kernel_size, int)
        or isinstance(kernel_size, bool)
        or kernel_size < 1
        or kernel_size % 2 == 0
    ):
        _fail("kernel_size", "be a positive odd integer", repr(kernel_size))
    _check_modules(features, position, mapping)


def _check_modules(
    features: Tensor, position: nn.Conv2d | None, mapping: nn.Sequential
) -> None:
    if position is not None and position.weight.shape != (2, 2, 1, 1):
        _fail(
            "position",
            "have a weight of shape [2, 2, 1, 1]",
            f"{list(position.weight.shape)}",
        )
    (bn1, bn2), _, (conv1, conv2) = mapping_layers(_OP, mapping, 2)
    relation, weights = conv1.weight.shape[0], conv2.weight.shape[0]
    sizes = [
        bn1.num_features,
        *conv1.weight.shape[:2],
        bn2.num_features,
        conv2.weight.shape[1],
    ]
    inputs = relation if position is None else relation + 2
    if sizes != [inputs, relation, inputs, relation, relation]:
        _fail(
            "mapping",
            f"take {'R' if position is None else 'R + 2'} channels to R and R"
            " to G",
            f"layers of {sizes} channels",
        )
    value = features.shape[1] - 2 * relation
    if value < 0 or value % weights:
        _fail(
            "features",
            f"have 2 * {relation} channels and a multiple of {weights}",
            f"{features.shape[1]}",
        )


def _fail(argument: str, rule: str, got: str) -> None:
    raise ValueError(f"{_OP}: {argument} must {rule}, got {got}")
