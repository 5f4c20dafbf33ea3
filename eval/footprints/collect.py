"""Weights of footprints, of one image or on average over many."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

import san


@dataclasses.dataclass(frozen=True)
class Footprints:
    """The weights of one block for one image.

    Attributes:
      block: its name, such as "layer2.0.sam".
      groups: the groups of channels that are kept, of `num_groups`; none
        where there is one, which is the mean.
      num_groups: G.
      weights: float32 [1 + len(groups), k, k, h, w] on the CPU: the mean over
        all G groups, then each that is kept; taps rows first.
    """

    block: str
    groups: list[int]
    num_groups: int
    weights: Tensor

    @property
    def side(self) -> int:
        """k, rows and columns of a footprint."""
        return self.weights.shape[1]


def of_image(
    model: nn.Module, image: Tensor, blocks: Sequence[str], max_groups: int
) -> list[Footprints]:
    """The weights of some blocks for an image.

    Args:
      model: the network; see san.attention_weights.
      image: [1, 3, H, W] on its device.
      blocks: names of blocks.
      max_groups: how many groups to keep, evenly from all.

    Raises:
      ValueError: there is no such block.
    """
    found = []
    for block in blocks:
        (weights,) = san.attention_weights(model, image, block).float().cpu()
        count = len(weights)
        # One alone is the mean.
        shown = min(max_groups, count) if count > 1 else 0
        kept = [g * count // shown for g in range(shown)]
        together = torch.cat([weights.mean(0, keepdim=True), weights[kept]])
        found.append(Footprints(block, kept, count, together))
    return found


def mean_over(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """The mean weights of every block over pixels and images.

    What the network looks at when it does not know what it sees.

    Args:
      model: the network; see san.attention_weights.
      batches: images [N, 3, H, W], and labels, which are not looked at.

    Returns:
      [G, k, k] for each block, on the CPU, float64.

    Raises:
      ValueError: there are no images, or no blocks.
    """
    sums: dict[str, Tensor] = {}
    blocks, count = list(san.attention_blocks(model)), 0
    if not blocks:
        raise ValueError(
            "mean_over: model must have attention blocks, got a"
            f" {type(model).__name__} without"
        )
    for images, _ in batches:
        count += len(images)
        for block in blocks:
            weights = san.attention_weights(model, images, block)
            mean = weights.double().mean((4, 5)).sum(0).cpu()
            sums[block] = sums[block] + mean if block in sums else mean
    if not count:
        raise ValueError("mean_over: batches must hold images, got none")
    return {block: total / count for block, total in sums.items()}
