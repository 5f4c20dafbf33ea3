"""Whether a file gives the logits of the network that it was made of."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tools.export.deployable import Deployable
from tools.export.tracing import Traced

# Largest difference, as a part of the largest logit where that is above 1.
# bfloat16 has 8 bits: its own rounding, added up in another order.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}

_SMALLEST = 32  # Images that the published networks take.


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far a file is from its network.

    Attributes:
      sizes: [N, H, W] that were compared.
      difference: the largest, see TOLERANCES.
    """

    sizes: list[tuple[int, int, int]]
    difference: float

    def as_text(self) -> str:
        """A line for people."""
        sizes = ", ".join("x".join(map(str, size)) for size in self.sizes)
        return (
            f"largest difference of a logit: {self.difference:.1e}"
            f" (images x height x width {sizes})"
        )


def compare(
    source: Deployable,
    traced: Traced,
    run: Callable[[Sequence[Tensor]], list[Tensor]],
    *,
    least: int,
) -> Agreement:
    """Compares logits of random images of several sizes.

    Args:
      source: the network.
      traced: its graph.
      run: gives the file's logits of batches of images.
      least: the smallest images that the file takes.

    Raises:
      ValueError: they differ by more than TOLERANCES, or are not finite.
    """
    sizes = _sizes(source, traced, least)
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(count, 3, *sides, generator=generator)
        for count, *sides in sizes
    ]
    ours = [source(batch) for batch in batches]
    differences = [
        (one - other).abs().max() / other.abs().max().clamp(min=1)
        for one, other in zip(run(batches), ours, strict=True)
    ]
    # By torch, whose maximum is NaN where one of them is.
    difference = float(torch.stack(differences).max())
    if not difference <= TOLERANCES[source.dtype]:
        raise ValueError(
            "export: the file's logits must be those of the network within"
            f" {TOLERANCES[source.dtype]:.0e}, got a difference of"
            f" {difference:.1e}; nothing was written"
        )
    return Agreement(sizes, difference)


def _sizes(
    source: Deployable, traced: Traced, least: int
) -> list[tuple[int, int, int]]:
    """Its own size; odd and not square; another batch; the smallest."""
    side = source.image_size
    if not traced.is_free:
        return [(2, side, side), (1, side, side)]
    sizes = [(2, side, side), (1, side + 1, side + 35), (3, side + 32, side)]
    smallest = max(least, _SMALLEST)
    if smallest < side and source.takes(smallest):
        sizes.append((1, smallest, smallest))
    return sizes
