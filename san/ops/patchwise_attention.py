"""The patchwise attention without its intermediate tensors.

Relation, mapping and aggregation of "Exploring Self-attention for Image
Recognition", CVPR 2020, section 3.2, on the two operators of
`patchwise_core`; what is here is ordinary PyTorch on tensors without taps.

Shape letters: N batch, R relation channels, G weight channels, C value
channels, H W image, k footprint, K = k * k taps, P = H * W pixels.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from san.norms import Moments, scale_and_shift
from san.ops.fused_call import compute_dtype, without_autocast
from san.ops.mapping import mapping_layers
from san.ops.patchwise_core import LARGEST_FOOTPRINT
from san.ops.window import check_alike, check_tensor, mirrored

_OP = "patchwise_attention"


def patchwise_attention(
    phi: torch.Tensor,
    psi: torch.Tensor,
    value: torch.Tensor,
    mapping: nn.Sequential,
    kernel_size: int,
) -> torch.Tensor:
    """y_i = sum over the footprint of gamma(phi_i, psi around i)_j * value_j.

    The footprint is mirrored at the edges. Half types are computed in
    float32; on CUDA the factors of products are rounded to them, where tensor
    cores take the sizes. In training the batch normalisations of the mapping
    use and track the statistics of the batch.

    Args:
      phi: [N, R, H, W]; like psi and value fastest in channels-last, or as
        some of the channels of an image that is.
      psi: [N, R, H, W].
      value: [N, C, H, W].
      mapping: gamma, as PatchwiseAttention has it: batch normalisation of
        the R * (K + 1) channels of the relation, ReLU, 1x1 convolution to G
        channels without bias, batch normalisation, ReLU, 1x1 convolution to
        G * K channels. C is a multiple of G.
      kernel_size: k; odd, at most 127.

    Returns:
      [N, C, H, W] in channels-last, of the dtype of value.

    Raises:
      ValueError: if an argument is none of the above, with the rule that it
        breaks.
    """
    _check(phi, psi, value, mapping, kernel_size)
    norms, _, matrices = mapping_layers(_OP, mapping, 2)
    (norm, hidden_norm), (squeeze, expand) = norms, matrices
    dtype = compute_dtype(value.dtype)
    with without_autocast(value):
        hidden = _hidden(phi, psi, norm, squeeze.weight, kernel_size)
        hidden = _normalised(hidden, hidden_norm)
        groups = hidden.shape[1]
        shape = (groups, kernel_size, kernel_size)
        return torch.ops.san.patchwise_core(
            hidden,
            value,
            expand.weight.to(dtype).view(*shape, groups),
            expand.bias.to(dtype).view(1, *shape),
        )


def _normalised(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    """ReLU of the normalised hidden layer."""
    scale, shift = scale_and_shift(norm, lambda: _moments(hidden), hidden.dtype)
    return F.relu(
        torch.addcmul(shift[:, None, None], hidden, scale[:, None, None])
    )


def _moments(x: torch.Tensor) -> Moments:
    mean = x.mean((0, 2, 3))
    # The variance does not move with the centre, so neither do gradients.
    x = x - mean.detach()[:, None, None]
    variance = x.square().mean((0, 2, 3))
    return Moments(x.shape[0] * x.shape[2] * x.shape[3], mean, variance)


def _hidden(
    phi: torch.Tensor,
    psi: torch.Tensor,
    norm: Any,
    weight: torch.Tensor,
    kernel_size: int,
) -> torch.Tensor:
    """The hidden layer of the mapping before its normalisation, [N,G,H,W]."""
    dtype = compute_dtype(phi.dtype)
    scale, shift = scale_and_shift(
        norm,
        lambda: _relation_moments(phi.to(dtype), psi, kernel_size),
        dtype,
    )
    return torch.ops.san.patchwise_hidden(
        phi,
        psi,
        scale.view(1, -1, 1, 1),
        shift.view(1, -1, 1, 1),
        weight.to(dtype),
        kernel_size,
    )


def _relation_moments(
    phi: torch.Tensor, psi: torch.Tensor, kernel_size: int
) -> Moments:
    """Statistics of phi and of the patches of psi, [R * (K + 1)] channels.

    A tap shows every pixel once, but for the mirrored edges: sums over
    patches are sums over pixels weighted by how often the tap shows them.
    """
    height, width = psi.shape[2:]
    count, mean, variance = _moments(phi)
    # In float64, about the mean: an edge far from it, and nearly constant, is
    # what some taps see alone, and its variance is the small difference of two
    # large sums.
    centre = psi.detach().double().mean((0, 2, 3))
    x = psi.double() - centre[:, None, None]
    sums = torch.stack([x.sum(0), x.square().sum(0)])
    rows = _tap_counts(height, kernel_size, x)
    columns = _tap_counts(width, kernel_size, x)
    first, second = (rows @ sums @ columns.t() / count).flatten(2)
    return Moments(
        count,
        torch.cat([mean, (first + centre[:, None]).flatten()]),
        torch.cat([variance, (second - first.square()).relu().flatten()]),
    )


def _tap_counts(
    size: int, kernel_size: int, like: torch.Tensor
) -> torch.Tensor:
    """How often each tap of an axis shows each of its pixels: [k, size]."""
    pixels = torch.arange(size, device=like.device)
    taps = torch.arange(kernel_size, device=like.device) - kernel_size // 2
    shown = mirrored(pixels + taps[:, None], size)
    return (shown[:, :, None] == pixels).sum(1).to(like.dtype)


def _check(
    phi: Any, psi: Any, value: Any, mapping: Any, kernel_size: Any
) -> None:
    op = _OP
    for name, tensor in (("value", value), ("phi", phi), ("psi", psi)):
        check_tensor(op, name, tensor)
        check_alike(op, name, tensor, "value", value)
    if value.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"{op}: value must be on the CPU or on CUDA, got {value.device}"
        )
    if phi.shape != psi.shape:
        raise ValueError(
            f"{op}: psi must have the shape of phi, {list(phi.shape)}, "
            f"got {list(psi.shape)}"
        )
    batch, channels, height, width = phi.shape
    if min(channels, height, width) < 1:
        raise ValueError(
            f"{op}: phi must have sizes of at least 1, got {list(phi.shape)}"
        )
    if value.shape[0] != batch or value.shape[2:] != phi.shape[2:]:
        raise ValueError(
            f"{op}: value must have the shape [N, C, H, W] = "
            f"[{batch}, C, {height}, {width}], got {list(value.shape)}"
        )
    is_integer = isinstance(kernel_size, int)
    if (
        not is_integer
        or not 1 <= kernel_size <= LARGEST_FOOTPRINT
        or kernel_size % 2 == 0
    ):
        raise ValueError(
            f"{op}: kernel_size must be a positive odd number of at most "
            f"{LARGEST_FOOTPRINT}, got {kernel_size!r}"
        )
    _check_mapping(op, channels, value.shape[1], mapping, kernel_size)


def _check_mapping(
    op: str, relation: int, channels: int, mapping: Any, kernel_size: int
) -> None:
    squeeze, expand = mapping_layers(op, mapping, 2).matrices
    num_taps = kernel_size * kernel_size
    inputs, groups = squeeze.in_channels, squeeze.out_channels
    if inputs != relation * (num_taps + 1):
        raise ValueError(
            f"{op}: mapping must take R * (kernel_size**2 + 1) = "
            f"{relation * (num_taps + 1)} channels, got {inputs}"
        )
    outputs = expand.out_channels
    if outputs != groups * num_taps:
        raise ValueError(
            f"{op}: mapping must make G * kernel_size**2 = "
            f"{groups * num_taps} channels, got {outputs}"
        )
    if channels % groups:
        raise ValueError(
            f"{op}: value must have a multiple of G = {groups} channels, "
            f"got {channels}"
        )
