"""Folded bottlenecks and their attention.

Shape letters: N batch, C channels, R relation channels, K taps of the
footprint, H W image.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from san.attention import PairwiseAttention, Summation
from san.folding.layers import (
    Constants,
    Norm,
    Pointwise,
    affine,
    bias_of,
    is_recorded,
    per_pixel,
    rows_of,
)
from san.folding.panels import Panels, panel_dtype
from san.ops.fused_call import compute_dtype
from san.ops.positions import offsets


class Bottleneck(Constants):
    """x + expand(relu(attend(norm(x)))), without the bias of expand."""

    def __init__(self, block: Any, missing: Tensor) -> None:
        super().__init__(weight=rows_of(block.conv))
        self.panels = Panels()
        scale, shift = affine(block.bn1)
        norm = Norm(scale, shift + scale * missing)
        is_pair = isinstance(block.sam, PairwiseAttention)
        fold = _Pairwise if is_pair else _Patchwise
        self.attention = fold(block.sam, norm, block.bn2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape, in channels-last."""
        image = x.permute(0, 2, 3, 1)
        if panel_dtype(x, self.weight) == x.dtype:
            sums = image.clone(memory_format=torch.contiguous_format)
            return self._add(sums.permute(0, 3, 1, 2), self.attention(x))
        rows = image.reshape(-1, x.shape[1])
        sums = torch.addmm(rows, *self._products(x))
        return sums.view(image.shape).permute(0, 3, 1, 2)

    def onto(self, x: Tensor) -> Tensor:
        """The same, written over an x in channels-last."""
        if panel_dtype(x, self.weight) == x.dtype:
            return self._add(x, self.attention(x))
        sums = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
        sums.addmm_(*self._products(x))
        return x

    def _add(self, sums: Tensor, y: Tensor) -> Tensor:
        panels = self.panels.of(self.weight, sums.dtype)
        shift = self.attention.missing()
        torch.ops.san.pointwise_add_(sums, y.to(sums.dtype), shift, panels)
        return sums

    def _products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices whose product is added."""
        y, shift = self.attention(x), self.attention.missing()
        if shift is not None:
            y = (y + per_pixel(shift)).to(y.dtype)
        y = y.relu().to(x.dtype)
        rows = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
        return rows, self.weight.to(x.dtype).T


class _Attention(Constants):
    """What both share: phi, psi and beta side by side by one convolution.

    The output of the attention comes out as scale * output + shift, but for
    what is missing().
    """

    def __init__(
        self,
        attention: Any,
        norm: Norm,
        scale: Tensor,
        shift: Tensor,
        /,
        **tensors: Tensor,
    ) -> None:
        super().__init__(**tensors)
        convs = [getattr(attention, n) for n in attention.transformations]
        *weights, weight = (rows_of(conv) for conv in convs)
        *biases, bias = (bias_of(conv) for conv in convs)
        if isinstance(attention.relation, Summation):
            weights[1], biases[1] = -weights[1], -biases[1]
        self.features = Pointwise(
            torch.cat([*weights, weight * scale[:, None]]),
            torch.cat([*biases, bias * scale + shift]),
            norm,
        )
        self.sizes = [len(conv.weight) for conv in convs]
        self.kernel_size = attention.kernel_size

    def missing(self) -> Tensor | None:
        """What is still to be added to the output, [C]."""
        return None


class _Cache(NamedTuple):
    """A mapping, what it was made for, and the constants it was made of.

    Constants that are held keep their ids to themselves.
    """

    key: tuple[Any, ...]
    constants: list[Tensor]
    mapping: tuple[Tensor, ...]


class _Pairwise(_Attention):
    """Sums softmax(w2 relu(w1 a + table)) * beta over the footprint.

    Here a = relu(scale * (phi_i - psi_j) + shift), and the table holds what
    the positions add at each tap.
    """

    def __init__(
        self, attention: Any, norm: Norm, output_norm: nn.Module
    ) -> None:
        norm1, norm2 = attention.conv_w.norms
        conv1, conv2 = attention.conv_w.matrices
        (scale, shift), (scale2, shift2) = affine(norm1), affine(norm2)
        w1 = rows_of(conv1) * scale2[:, None]
        relation = len(w1)
        position = scale.new_zeros(2, 0)
        if attention.position is not None:
            position = rows_of(attention.conv_p).T * -scale[relation:]
        super().__init__(
            attention,
            norm,
            *affine(output_norm),
            scale=scale[:relation],
            shift=shift[:relation],
            w1=w1[:, :relation],
            w2=rows_of(conv2),  # The softmax does not see the bias.
            position=position,
            position_shift=shift[relation:],
            position_w1=w1[:, relation:].T,
            table_shift=shift2,
        )
        self.cache: _Cache | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies and files, which hold other tensors: without cache."""
        return {**self.__dict__, "cache": None}

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return torch.ops.san.pairwise_core(
            features, *self.mapping(features), self.kernel_size
        )

    def mapping(self, features: Tensor) -> tuple[Tensor, ...]:
        """Scale, shift, table, w1 and w2 for images of this size."""
        constants = [t for t in self._buffers.values() if t is not None]
        # Inference tensors do not count their changes.
        if is_recorded() or any(t.is_inference() for t in constants):
            return self.make_mapping(features)
        key = (
            type(features),  # A fake tensor leaves nothing to a real one.
            features.shape[2:],
            features.dtype,
            features.device,
            *((id(t), t._version) for t in constants),
        )
        cache = self.cache
        if cache is None or cache.key != key:
            # Usable in any mode later.
            with torch.inference_mode(False), torch.no_grad():
                cache = _Cache(key, constants, self.make_mapping(features))
            self.cache = cache
        return cache.mapping

    def make_mapping(self, features: Tensor) -> tuple[Tensor, ...]:
        position, w1 = self.position.double(), self.position_w1.double()
        # In float64, which autocast leaves alone.
        a = offsets(features, self.kernel_size) @ position
        a = a + self.position_shift
        table = a.relu() @ w1 + self.table_shift
        dtype = compute_dtype(features.dtype)
        mapping = self.scale, self.shift, table, self.w1, self.w2
        return tuple(t.to(dtype) for t in mapping)


class _Patchwise(_Attention):
    """Sums (w2 relu(w1 a + hidden_shift) + bias) * beta over the footprint.

    Here a = relu(scale * (phi, psi at all taps) + shift).
    """

    def __init__(
        self, attention: Any, norm: Norm, output_norm: nn.Module
    ) -> None:
        out_scale, out_shift = affine(output_norm)
        norm1, norm2 = attention.conv_w.norms
        conv1, conv2 = attention.conv_w.matrices
        (scale, shift), (scale2, shift2) = affine(norm1), affine(norm2)
        size, groups = attention.kernel_size, len(conv1.weight)
        super().__init__(
            attention,
            norm,
            out_scale,
            torch.zeros_like(out_shift),
            scale=scale.view(1, -1, 1, 1),
            shift=shift.view(1, -1, 1, 1),
            w1=per_pixel(rows_of(conv1) * scale2[:, None]),
            hidden_shift=per_pixel(shift2),
            w2=conv2.weight.view(groups, size, size, groups),
            bias=conv2.bias.view(1, groups, size, size),
            out_shift=per_pixel(out_shift),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        dtype = compute_dtype(features.dtype)
        phi, psi, beta = features.split(self.sizes, dim=1)
        constants = self.scale, self.shift, self.w1, self.w2, self.bias
        scale, shift, w1, w2, bias = (t.to(dtype) for t in constants)
        hidden = torch.ops.san.patchwise_hidden(
            phi, psi, scale, shift, w1, self.kernel_size
        )
        hidden = hidden.add_(self.hidden_shift).relu_()
        return torch.ops.san.patchwise_core(hidden, beta, w2, bias)

    def missing(self) -> Tensor:
        """The shift of the norm behind it, whose scale is in beta."""
        return self.out_shift.flatten()
