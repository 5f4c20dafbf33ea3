"""The layers of folded networks, channels-last, and what they are made of.

Shape letters: N batch, C channels, H W image, P pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.folding.panels import Panels, panel_dtype
from san.fusion.rule import (
    why_all_hooked,
    why_hooked,
    why_transformed,
    why_watched,
)
from san.norms import Moments, scale_and_shift
from san.ops.fused_call import compute_dtype


class Constants(nn.Module):
    """Holds tensors that move and convert with the module."""

    def __init__(self, **tensors: Tensor | None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def onto(self, x: Tensor) -> Tensor:
        """What forward gives, perhaps written over x."""
        return self(x)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Layers(nn.Sequential):
    """The layers of a network, one after the other.

    A bottleneck may write its output over its input, but only where nobody
    else can have kept it: not beside a hook that saw it, and not over what a
    module that is not of ours has made.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to what the last layer makes of them."""
        is_ours, is_watched = False, bool(why_watched())
        layers: Any = self
        for layer in layers:
            is_unseen = not is_watched and not _why_seen(layer)
            if is_ours and is_unseen:
                x = layer.onto(x)
            else:
                x = layer(x)
            is_ours = is_unseen
        return x


class Chain(nn.Module):
    """Modules that people have changed, called one after the other."""

    def __init__(self, modules: Sequence[Any]) -> None:
        super().__init__()
        self.length = len(modules)
        for index, module in enumerate(modules):
            setattr(self, f"step{index}", module)  # Perhaps a function.

    def forward(self, x: Tensor) -> Tensor:
        """What the last of them gives."""
        for index in range(self.length):
            x = getattr(self, f"step{index}")(x)
        return x


class Shift(Constants):
    """x + shift, channel by channel."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__(shift=shift)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        return x + per_pixel(self.shift)


class Norm(Constants):
    """max(0, scale * x + shift), pooled by the maximum of pool x pool."""

    def __init__(self, scale: Tensor, shift: Tensor, pool: int = 1) -> None:
        super().__init__(scale=scale, shift=shift)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, H // pool, W // pool]."""
        if self.pool > 1:
            require_poolable("fold_for_inference", x)
        if takes_gradient(x):  # The operator has no derivative.
            shift, scale = per_pixel(self.shift), per_pixel(self.scale)
            y = torch.addcmul(shift, x, scale).relu_()
            return F.max_pool2d(y, self.pool) if self.pool > 1 else y
        dtype = compute_dtype(x.dtype)
        scale, shift = self.scale.to(dtype), self.shift.to(dtype)
        return torch.ops.san.affine_relu(x, scale, shift, self.pool)

    def is_plain(self) -> bool:
        """Whether its scale, shift and ReLU are all that a call would do."""
        return (
            type(self) is Norm
            and self.pool == 1
            and not (why_all_hooked() or _why_seen(self))
        )


class Stem(Constants):
    """max(0, weight x + shift), pooled by the maximum of 2 x 2."""

    def __init__(self, weight: Tensor, shift: Tensor) -> None:
        super().__init__(weight=weight, shift=shift)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, len(weight), H // 2, W // 2]."""
        require_images(x, self.weight)
        dtype = compute_dtype(x.dtype)
        y, weight, shift = (t.to(dtype) for t in (x, self.weight, self.shift))
        return torch.ops.san.stem(y, weight, shift).to(self.weight.dtype)


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
        self.panels = Panels()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to another number of channels."""
        norm, dtype = self.norm, panel_dtype(x, self.weight)
        scale = shift = None
        # An image that is still to be rounded goes through its norm first.
        if norm is not None and dtype == x.dtype and norm.is_plain():
            scale, shift = norm.scale, norm.shift
        elif norm is not None:
            x = norm(x)
            dtype = panel_dtype(x, self.weight)
        if dtype is not None:
            panels = self.panels.of(self.weight, dtype)
            return torch.ops.san.pointwise(
                x.to(dtype), scale, shift, panels, self.bias, len(self.weight)
            )
        y = F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias)
        return y.permute(0, 3, 1, 2)


def _why_seen(layer: nn.Module) -> str:
    """Why somebody may see what a layer, or a layer in it, takes or gives."""
    if not isinstance(layer, Constants):
        return "it is not of ours"
    for module in layer.modules():
        own = vars(module)
        why = why_hooked("it", module)
        if why or "forward" in own or "_compiled_call_impl" in own:
            return why or "it has a forward of its own"
    return ""


def require_poolable(op: str, x: Tensor) -> None:
    """Raises ValueError for images of which no 2 x 2 pixels can be pooled."""
    if min(x.shape[2:]) < 2:
        raise ValueError(
            f"{op}: images must be large enough for every pooling, got "
            f"{list(x.shape[2:])} pixels before one"
        )


def require_images(images: Any, weight: Tensor) -> None:
    """Raises ValueError for what the modules would refuse, too."""
    op, channels = "fold_for_inference", weight.shape[1]
    if not isinstance(images, Tensor) or images.dim() != 4:
        got = type(images).__name__
        if isinstance(images, Tensor):
            got = str(list(images.shape))
        raise ValueError(
            f"{op}: images must be a tensor [N, C, H, W], got {got}"
        )
    if images.shape[1] != channels:
        raise ValueError(
            f"{op}: images must have {channels} channels, got {images.shape[1]}"
        )
    if images.dtype != weight.dtype and not torch.is_autocast_enabled(
        images.device.type
    ):
        raise ValueError(
            f"{op}: images must be {weight.dtype} as the network is, got "
            f"{images.dtype}"
        )
    require_poolable(op, images)


def takes_gradient(x: Tensor) -> bool:
    """Whether the results of x are to be differentiated or transformed."""
    return (torch.is_grad_enabled() and x.requires_grad) or bool(
        why_transformed()
    )


def is_recorded() -> bool:
    """Whether what is computed now will be for images of other sizes, too."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def rows_of(conv: Any) -> Tensor:
    """The matrix of a 1x1 convolution, in float64."""
    return conv.weight.flatten(1).double()


def bias_of(conv: Any) -> Tensor:
    """The bias of a convolution, in float64; zeros where it has none."""
    if conv.bias is None:
        return conv.weight.new_zeros(len(conv.weight), dtype=torch.float64)
    return conv.bias.double()


def per_pixel(tensor: Tensor) -> Tensor:
    """[..., C] as [..., C, 1, 1]."""
    return tensor[..., None, None]


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The scale and the shift of a norm in eval mode, in float64."""
    return scale_and_shift(norm, _no_moments, torch.float64)


def _no_moments() -> Moments:
    raise ValueError(
        "fold_for_inference: every norm must have running statistics, got "
        "one with track_running_stats=False"
    )
