"""A network as it is deployed: how it computes, and what it has to be given."""

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor, nn

import san
from eval.loading import Network
from san.data import PREPROCESSING, Data
from san.jobs import valid_json

# The attention backend behind each --ops.
BACKENDS = {"san": "fused", "aten": "reference"}


@dataclasses.dataclass(frozen=True)
class Deployable:
    """What is exported.

    Attributes:
      model: maps float32 images to float32 logits, in eval mode.
      ops: a name of BACKENDS: whose operators it calls.
      dtype: in which it computes.
      image_size: side of the images that it is meant for, in pixels.
      metadata: what the file says of itself, all of it text.
    """

    model: nn.Module
    ops: str
    dtype: torch.dtype
    image_size: int
    metadata: dict[str, str]

    @property
    def metadata_text(self) -> str:
        """The metadata as one JSON object."""
        return valid_json.text_of(self.metadata)

    def __call__(self, images: Tensor) -> Tensor:
        """Its logits here, without gradients.

        Args:
          images: float32 [N, 3, H, W].
        """
        with torch.no_grad(), san.use_attention_backend(BACKENDS[self.ops]):
            return self.model(images)

    def takes(self, side: int) -> bool:
        """Whether the network is made for images as small as this.

        Args:
          side: of the images, in pixels.
        """
        try:
            self(torch.zeros(1, 3, side, side))
        except (RuntimeError, ValueError):  # As torch and our operators say.
            return False
        return True


def deployable(
    network: Network, data: Data, ops: str, dtype: torch.dtype
) -> Deployable:
    """What to export of a trained network, which is changed.

    Args:
      network: as it was read.
      data: sizes and normalisation of its input.
      ops: a name of BACKENDS.
      dtype: in which it will compute.
    """
    model: nn.Module = network.model.eval().requires_grad_(False)
    if dtype != torch.float32:
        model = _Converted(model, dtype).eval()
    facts: dict[str, Any] = {
        "classes": network.classes,
        "image_size": data.image_size,
        "resize_size": data.resize_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "epoch": network.checkpoint.get("epoch"),
    }
    metadata = {
        "network": network.name or "a network of the user's own",
        "preprocessing": PREPROCESSING,
        **{k: json.dumps(v) for k, v in facts.items() if v is not None},
    }
    return Deployable(model, ops, dtype, data.image_size, metadata)


class _Converted(nn.Module):
    """A network that computes in another dtype than its images have."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.dtype)).float()
