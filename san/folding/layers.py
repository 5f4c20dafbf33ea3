"""The layers of folded networks, channels-last, and what they are made of.

On the CPU they go through an image piece by piece where what comes between
two matrix products would be larger than the caches.

Shape letters: N batch, C channels, H W image, P pixels.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.ops.batch_statistics import Moments, scale_and_shift

# A piece has this many elements, 1 MB in float32, but no fewer pixels than a
# matrix product is fast with. Measured.
_PIECE_ELEMENTS = 1 << 18
_LEAST_PIECE_PIXELS = 1024


class Constants(nn.Module):
    """Holds tensors that move and convert with the module."""

    def __init__(self, **tensors: Tensor | None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Input(nn.Module):
    """Images in channels-last, as every layer hands them on."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same."""
        return x.contiguous(memory_format=torch.channels_last)


class Norm(Constants):
    """relu(scale * x + shift), of channels in the last dimension."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__(scale=scale, shift=shift)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., C] to the same shape."""
        return torch.addcmul(self.shift, x, self.scale).relu_()


class ImageNorm(Norm):
    """The same of an image."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pointwise(Constants):
    """A 1x1 convolution, of the image or of what the norm makes of it."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        norm: Norm | None = None,
    ) -> None:
        super().__init__(weight=weight, bias=bias)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to another number of channels."""
        x = x.permute(0, 2, 3, 1)
        if self.norm is None:
            y = F.linear(x, self.weight, self.bias)
        elif can_work_in_pieces(x):
            y = self._in_pieces(x, self.norm)
        else:
            y = F.linear(self.norm(x), self.weight, self.bias)
        return y.permute(0, 3, 1, 2)

    def _in_pieces(self, x: Tensor, norm: Norm) -> Tensor:
        """[N, H, W, C]: the norm's result stays in the cache."""
        channels, columns = x.shape[-1], self.weight.shape[0]
        y = x.new_empty((*x.shape[:3], columns))
        pixels = max(_LEAST_PIECE_PIXELS, _PIECE_ELEMENTS // channels)
        for source, target in zip(
            x.reshape(-1, channels).split(pixels),
            y.view(-1, columns).split(pixels),
            strict=True,
        ):
            if self.bias is None:
                torch.mm(norm(source), self.weight.T, out=target)
            else:
                torch.addmm(self.bias, norm(source), self.weight.T, out=target)
        return y


class PooledPointwise(Constants):
    """The maximum of a 1x1 convolution over 2 x 2 pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight=weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, len(weight), H // 2, W // 2]."""
        height, width = (size // 2 * 2 for size in x.shape[2:])
        x = x.permute(0, 2, 3, 1)[:, :height, :width]
        if can_work_in_pieces(x):
            y = self._in_bands(x)
        else:
            y = _pooled_columns(_pooled_rows(F.linear(x, self.weight)))
        return y.permute(0, 3, 1, 2)

    def _in_bands(self, x: Tensor) -> Tensor:
        """[N, H, W, C]: the unpooled image is never there as a whole."""
        batch, height, width, _ = x.shape
        channels = self.weight.shape[0]
        y = x.new_empty((batch, height // 2, width // 2, channels))
        rows = max(1, _PIECE_ELEMENTS // (4 * width * channels))
        for image, pooled in zip(x, y, strict=True):
            for source, target in zip(
                image.split(2 * rows), pooled.split(rows), strict=True
            ):
                band = _pooled_rows(F.linear(source, self.weight)[None])
                _pooled_columns(band, out=target[None])
        return y


def can_work_in_pieces(x: Tensor) -> bool:
    """Whether to: out= has no gradient and is nothing for compilers."""
    return (
        x.device.type == "cpu"
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and x.requires_grad)
    )


def rows_of(conv: Any) -> Tensor:
    """The matrix of a 1x1 convolution, in float64."""
    return conv.weight.flatten(1).double()


def per_pixel(tensor: Tensor) -> Tensor:
    """[..., C] as [..., C, 1, 1]."""
    return tensor[..., None, None]


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The scale and the shift of a norm in eval mode, in float64."""
    return scale_and_shift(norm, _no_moments, torch.float64)


def unsupported(module: nn.Module) -> ValueError:
    """What fold_for_inference says of a module that it does not know."""
    return ValueError(
        "fold_for_inference: model must be a SAN of PairwiseAttention or "
        f"PatchwiseAttention or a ResNet, got {type(module).__name__}"
    )


def _pooled_rows(x: Tensor) -> Tensor:
    return torch.maximum(x[:, 0::2], x[:, 1::2])


def _pooled_columns(x: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.maximum(x[:, :, 0::2], x[:, :, 1::2], out=out)


def _no_moments() -> Moments:
    raise ValueError(
        "fold_for_inference: every norm must have running statistics, got "
        "one with track_running_stats=False"
    )
