"""What detectors and segmenters are built on: the maps of all stages."""

from typing import Any

from torch import Tensor, nn

from san.fusion import Group, describe_unfused
from san.networks import resnet, san
from san.networks.resnet import ResNet
from san.networks.san import SAN

_HEAD = ("avgpool", "fc")


class FeaturePyramid(nn.Module):
    """The maps that leave the stages of a SAN or a ResNet, by name.

    Its modules are the network's and have the same names, in its state dict
    too, less those of the head. Those of a SAN are taken after the stage's
    norm and ReLU; where the image is no multiple of a stride, a map of a SAN
    has H // stride rows, one of a ResNet ceil(H / stride).

    Args:
      network: as it was made; the pyramid takes its modules over.

    Attributes:
      names: of the maps, finest first: "layer0" to "layer4" of a SAN,
        "layer1" to "layer4" of a ResNet.
      channels: of each map.
      strides: pixels of the image to a pixel of each map, 2 to 32, or 4 to
        32.

    Raises:
      ValueError: if the network is neither, or has a forward of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        modules: Any = network
        kind = type(network)
        if kind.forward is SAN.forward:
            stages, first = range(modules.num_stages), 2
            norms = [network.get_submodule(f"bn{stage}") for stage in stages]
            channels = [norm.num_features for norm in norms]
            self.num_stages = len(stages)
            self._maps = san.stage_maps
        elif kind.forward is ResNet.forward:
            stages, first = range(1, 5), 4
            blocks = [modules.get_submodule(f"layer{n}")[-1] for n in stages]
            channels = [block.conv3.out_channels for block in blocks]
            self._maps = resnet.stage_maps
        else:
            raise ValueError(
                "create_model: name must be that of a SAN or a ResNet where"
                f" features are asked for, got one of a {kind.__name__}"
            )
        self.names = tuple(f"layer{stage}" for stage in stages)
        self.channels = tuple(channels)
        self.strides = tuple(first * 2**n for n in range(len(stages)))
        for name, child in network.named_children():
            if name not in _HEAD:
                self.add_module(name, child)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps images [N, in_channels, H, W] to [N, C, H / stride, ...] each.

        Raises:
          ValueError: if H or W is below the largest stride, 32.
        """
        least = self.strides[-1]
        if images.dim() != 4 or min(images.shape[2:]) < least:
            raise ValueError(
                f"FeaturePyramid: images must be [N, C, H, W] of at least"
                f" {least} x {least} pixels, got {list(images.shape)}"
            )
        return dict(zip(self.names, self._maps(self, images), strict=True))

    def why_unfused(self, like: Tensor) -> list[str]:
        """What runs module by module, and why; see san.why_unfused."""
        if self._maps is not san.stage_maps:
            return []
        steps = [s for s in san.steps_of(self) if isinstance(s, Group)]
        return [why for step in steps if (why := step.why(like))]

    def extra_repr(self) -> str:
        """The maps, and what is not fused, if anything."""
        maps = ", ".join(
            f"{name}: {channels} channels at stride {stride}"
            for name, channels, stride in zip(
                self.names, self.channels, self.strides, strict=True
            )
        )
        return "; ".join(filter(None, (maps, describe_unfused(self))))
