"""Networks for inference only: every batch norm becomes part of its peers.

Done is what is exact in real numbers and pays; the rest stays a norm:

- A norm after a convolution joins the convolution (ResNet).
- A norm before the pooling moves behind it, to a quarter of the pixels. A
  maximum commutes with scales of positive sign only, so channels of negative
  scale are negated in everything that writes or reads them (SAN).
- bn2 of a bottleneck joins conv3. The weights of pairwise attention add up to
  one, so the shift joins too; patchwise attention adds it itself.
- The norms of a mapping join its matrices and its table of offsets.
- A bottleneck adds to its input in place, and the bias that it leaves out
  waits in the shifts of the norms that read the sum. This sum has several
  readers, so bn1 stays: as scale, shift and ReLU.

Shape letters: N batch, C channels, R relation channels, K taps of the
footprint, H W image, P = H * W pixels.
"""

import copy
import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from san.attention import PairwiseAttention, PatchwiseAttention
from san.networks import SAN, ResNet
from san.ops.batch_statistics import Moments, scale_and_shift
from san.ops.pairwise_core import compute_dtype


@torch.inference_mode(False)
@torch.no_grad()
def fold_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a network that computes the same without batch norms.

    Args:
      model: a SAN of pairwise or patchwise attention or a ResNet, in either
        mode. It stays as it is.

    Returns:
      A module with the outputs of model.eval() up to rounding. It stays in
      eval mode; its weights are constants. That of a SAN runs on the CPU, as
      the backend "fused" does whatever set_attention_backend says.

    Raises:
      ValueError: if the model is none of these, or one of its norms has no
        running statistics.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if not isinstance(network, SAN | ResNet):
        raise _unsupported(model)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            _affine(module)
    is_san = isinstance(network, SAN)
    return _Folded(_fold_san(network) if is_san else _fold_resnet(network))


class _Folded(nn.Module):
    """A network that stays in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def train(self, mode: bool = True) -> "_Folded":
        if mode:
            raise RuntimeError(
                "fold_for_inference: a folded model must stay in eval mode, "
                "got train(True); train the model that it was made from"
            )
        return super().train(False)


def _fold_resnet(network: nn.Module) -> nn.Module:
    for module in list(network.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = True
        for (name, conv), (norm_name, norm) in itertools.pairwise(
            list(module.named_children())
        ):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network


def _fold_san(network: Any) -> nn.Module:
    layers = [_Input(), *_fold_stage(network.conv_in, (), network.bn_in)]
    for stage in range(network.num_stages):
        layers.insert(-1, network.pool)  # Before the norm.
        names = f"conv{stage}", f"layer{stage}", f"bn{stage}"
        layers += _fold_stage(*map(network.get_submodule, names))
    folded = nn.Sequential(*layers).to(network.fc.weight.dtype)
    return nn.Sequential(folded, network.avgpool, nn.Flatten(), network.fc)


def _fold_stage(conv: Any, blocks: Any, norm: Any) -> list[nn.Module]:
    """The convolution, the blocks and the norm.

    What they hand on has the sign of the norm's scale and lacks the biases
    of the blocks before.
    """
    scale, shift = _affine(norm)
    sign = torch.where(scale < 0, -1.0, 1.0)
    missing = torch.zeros_like(scale)
    layers: list[nn.Module] = [_Pointwise(_rows(conv) * sign[:, None])]
    for block in blocks:
        layers.append(_Bottleneck(block, sign, missing))
        missing = missing + block.conv.bias
    return [*layers, _Norm(scale * sign, shift + scale * missing)]


class _Constants(nn.Module):
    """Holds tensors that move and convert with the module."""

    def __init__(self, **tensors: Tensor | None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class _Input(nn.Module):
    """Images in channels-last, as every layer hands them on."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            raise ValueError(
                f"fold_for_inference: images must be on the CPU, got {x.device}"
            )
        return x.contiguous(memory_format=torch.channels_last)


class _Norm(_Constants):
    """relu(scale * x + shift)."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__(scale=_per_pixel(scale), shift=_per_pixel(shift))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale).relu_()


class _Pointwise(_Constants):
    """A 1x1 convolution."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight=weight, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias)
        return y.permute(0, 3, 1, 2)


class _Bottleneck(_Constants):
    """x + expand(relu(attend(norm(x)))), written over x."""

    def __init__(self, block: Any, sign: Tensor, missing: Tensor) -> None:
        super().__init__(weight=_rows(block.conv) * sign[:, None])
        scale, shift = _affine(block.bn1)
        self.norm = _Norm(scale * sign, shift + scale * missing)
        is_pair = isinstance(block.sam, PairwiseAttention)
        if not is_pair and not isinstance(block.sam, PatchwiseAttention):
            raise _unsupported(block.sam)
        fold = _Pairwise if is_pair else _Patchwise
        self.attention = fold(block.sam, block.bn2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(x)).relu().to(x.dtype)
        rows = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
        sums = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
        sums.addmm_(rows, self.weight.to(x.dtype).T)
        return x


class _Attention(_Constants):
    """What both share: phi, psi and beta side by side by one convolution."""

    def __init__(
        self, attention: Any, scale: Tensor, shift: Tensor, /, **tensors: Tensor
    ) -> None:
        super().__init__(**tensors)
        convs = attention.conv1, attention.conv2, attention.conv3
        *weights, weight = (_rows(conv) for conv in convs)
        *biases, bias = (conv.bias for conv in convs)
        self.features = _Pointwise(
            torch.cat([*weights, weight * scale[:, None]]),
            torch.cat([*biases, bias * scale + shift]),
        )
        self.sizes = [conv.out_channels for conv in convs]
        self.kernel_size = attention.kernel_size


class _Pairwise(_Attention):
    """Sums softmax(w2 relu(w1 a + table)) * beta over the footprint.

    Here a = relu(scale * (phi_i - psi_j) + shift), and the table holds what
    the positions add at each tap.
    """

    def __init__(self, attention: Any, norm: nn.Module) -> None:
        norm1, _, conv1, norm2, _, conv2 = attention.conv_w
        (scale, shift), (scale2, shift2) = _affine(norm1), _affine(norm2)
        w1 = _rows(conv1) * scale2[:, None]
        relation = len(w1)
        super().__init__(
            attention,
            *_affine(norm),
            scale=scale[:relation],
            shift=shift[:relation],
            w1=w1[:, :relation],
            w2=_rows(conv2),  # The softmax does not see the bias.
            position=_rows(attention.conv_p).T * -scale[relation:],
            position_shift=shift[relation:],
            position_w1=w1[:, relation:].T,
            table_shift=shift2,
        )
        self.cache: tuple[Any, tuple[Tensor, ...]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return torch.ops.san.pairwise_core(
            features, *self.mapping(features), self.kernel_size
        )

    def mapping(self, features: Tensor) -> tuple[Tensor, ...]:
        """Scale, shift, table, w1 and w2 for images of this size."""
        if torch.compiler.is_compiling():
            return self.make_mapping(features)
        key = features.shape[2:], features.dtype, features.device
        cache = self.cache
        if cache is None or cache[0] != key:
            # Usable in any mode later.
            with torch.inference_mode(False), torch.no_grad():
                cache = key, self.make_mapping(features)
            self.cache = cache
        return cache[1]

    def make_mapping(self, features: Tensor) -> tuple[Tensor, ...]:
        size, device = self.kernel_size, features.device
        taps = torch.arange(size, dtype=torch.float64, device=device)
        # Rows and columns of an image go from -1 to 1.
        rows, columns = (
            (taps - size // 2) * (2 / max(length - 1, 1))
            for length in features.shape[2:]
        )
        offsets = [columns.repeat(size), rows.repeat_interleave(size)]
        position, w1 = self.position.double(), self.position_w1.double()
        with torch.autocast(device.type, enabled=False):
            a = torch.stack(offsets, dim=1) @ position + self.position_shift
            table = a.relu() @ w1 + self.table_shift
        dtype = compute_dtype(features.dtype)
        mapping = self.scale, self.shift, table, self.w1, self.w2
        return tuple(t.to(dtype) for t in mapping)


class _Patchwise(_Attention):
    """Sums (w2 relu(w1 a + hidden_shift) + bias) * beta over the footprint.

    Here a = relu(scale * (phi, psi at all taps) + shift).
    """

    def __init__(self, attention: Any, norm: nn.Module) -> None:
        out_scale, out_shift = _affine(norm)
        norm1, _, conv1, norm2, _, conv2 = attention.conv_w
        (scale, shift), (scale2, shift2) = _affine(norm1), _affine(norm2)
        size, groups = attention.kernel_size, conv1.out_channels
        super().__init__(
            attention,
            out_scale,
            torch.zeros_like(out_shift),
            scale=scale.view(1, -1, 1, 1),
            shift=shift.view(1, -1, 1, 1),
            w1=_per_pixel(_rows(conv1) * scale2[:, None]),
            hidden_shift=_per_pixel(shift2),
            w2=conv2.weight.view(groups, size, size, groups),
            bias=conv2.bias.view(1, groups, size, size),
            out_shift=_per_pixel(out_shift),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        dtype = compute_dtype(features.dtype)
        phi, psi, beta = features.to(dtype).split(self.sizes, dim=1)
        constants = self.scale, self.shift, self.w1, self.w2, self.bias
        scale, shift, w1, w2, bias = (t.to(dtype) for t in constants)
        hidden = torch.ops.san.patchwise_hidden(
            phi, psi, scale, shift, w1, self.kernel_size
        )
        hidden = hidden.add_(self.hidden_shift).relu_()
        y = torch.ops.san.patchwise_core(hidden, beta, w2, bias)
        return y.add_(self.out_shift).to(features.dtype)


def _rows(conv: Any) -> Tensor:
    """The matrix of a 1x1 convolution."""
    return conv.weight.flatten(1).double()


def _per_pixel(tensor: Tensor) -> Tensor:
    return tensor[..., None, None]


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The scale and the shift of a norm in eval mode, in float64."""
    return scale_and_shift(norm, _no_moments, torch.float64)


def _no_moments() -> Moments:
    raise ValueError(
        "fold_for_inference: every norm must have running statistics, got "
        "one with track_running_stats=False"
    )


def _unsupported(module: nn.Module) -> ValueError:
    return ValueError(
        "fold_for_inference: model must be a SAN of PairwiseAttention or "
        f"PatchwiseAttention or a ResNet, got {type(module).__name__}"
    )
