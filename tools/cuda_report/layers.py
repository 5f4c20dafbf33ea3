"""The attention layers of SAN10 at 224 x 224, which the model is made for."""

import dataclasses

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Layer:
    """One of the five stages.

    Attributes:
      number: of the stage, from 0.
      blocks: attention blocks in it.
      side: H and W.
      k: the footprint.
      M: channels of the value.
      R: channels of the relation.
      G: channels of the weights.
      width: channels around the attention block.
    """

    number: int
    blocks: int
    side: int
    k: int
    M: int
    R: int
    G: int
    width: int

    @property
    def K(self) -> int:  # noqa: N802
        """Taps."""
        return self.k * self.k

    @property
    def F(self) -> int:  # noqa: N802
        """Channels of phi, psi and value together."""
        return 2 * self.R + self.M

    @property
    def image(self) -> int:
        """Pixels of an image."""
        return self.side * self.side

    @property
    def pixels(self) -> int:
        """Pixels of the batch."""
        return BATCH * self.image


LAYERS = tuple(
    Layer(number, blocks, side, k, width // 4, width // 16, width // 32, width)
    for number, (blocks, side, k, width) in enumerate(
        (
            (2, 112, 3, 64),
            (1, 56, 7, 256),
            (2, 28, 7, 512),
            (4, 14, 7, 1024),
            (1, 7, 7, 2048),
        )
    )
)
