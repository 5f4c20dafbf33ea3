"""Folds every batch norm of a network into its peers.

Done is what is exact in real numbers and pays; the rest stays a norm:

- A norm after a convolution joins the convolution (ResNet).
- The norm of the first convolution joins it, and the pooling makes one layer
  of the three, so that no image of full size with many channels is ever there.
- bn2 of a bottleneck joins conv3. The weights of pairwise attention add up to
  one, so the shift joins too; patchwise attention adds it itself.
- The norms of a mapping join its matrices and its table of offsets.
- A bottleneck adds to its input in place, and the bias that it leaves out
  waits in the shifts of the norms that read the sum. This sum has several
  readers, so bn1 stays: as scale, shift and ReLU.
"""

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from san.folding.attention import Bottleneck
from san.folding.layers import (
    Norm,
    Pointwise,
    Stem,
    affine,
    rows_of,
    unsupported,
)
from san.networks import SAN, ResNet


@torch.inference_mode(False)
@torch.no_grad()
def fold_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a network that computes the same without batch norms.

    Args:
      model: a SAN of pairwise or patchwise attention or a ResNet, in either
        mode. It stays as it is.

    Returns:
      A module with the outputs of model.eval() up to rounding. It stays in
      eval mode; its weights are constants. That of a SAN computes as the
      backend "fused" does whatever set_attention_backend says.

    Raises:
      ValueError: if the model is none of these, one of its norms has no
        running statistics, or one of its blocks is too large for the fused
        operators.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if not isinstance(network, SAN | ResNet):
        raise unsupported(model)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            affine(module)
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
    scale, shift = affine(network.bn_in)
    layers: list[nn.Module] = [
        Stem(rows_of(network.conv_in) * scale[:, None], shift)
    ]
    last = network.num_stages - 1
    for stage in range(network.num_stages):
        names = f"conv{stage}", f"layer{stage}", f"bn{stage}"
        conv, blocks, norm = map(network.get_submodule, names)
        pool = 1 if stage == last else 2
        layers += _fold_stage(conv, blocks, norm, pool)
    folded = nn.Sequential(*layers).to(network.fc.weight.dtype)
    return nn.Sequential(folded, network.avgpool, nn.Flatten(), network.fc)


def _fold_stage(
    conv: Any, blocks: Any, norm: Any, pool: int
) -> list[nn.Module]:
    """The convolution, the blocks, and the norm with what pools it.

    What the blocks hand on lacks the biases of the blocks before.
    """
    layers: list[nn.Module] = [Pointwise(rows_of(conv))]
    scale, shift = affine(norm)
    missing = torch.zeros_like(scale)
    for block in blocks:
        layers.append(Bottleneck(block, missing))
        missing = missing + block.conv.bias
    return [*layers, Norm(scale, shift + scale * missing, pool)]
