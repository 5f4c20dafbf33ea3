"""What the relation learns of where two pixels lie.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020, section
3.1; its table 8 compares what there is. Coordinates are in
`san.ops.positions`. A new kind is a class in here, and a row of the table
below if it is to have a name.

Shape letters: N batch, M channels of a query, G groups, K taps of the
footprint, k its rows and columns, P pixels.
"""

from collections.abc import Callable

import gin
import torch
from torch import Tensor, nn

from san.attention.window_ops import same_window, taps, window_ops


class Position(nn.Module):
    """Says where the taps of each pixel lie, in transformed coordinates.

    Subclasses say how.
    """

    # Of the transformed coordinates, and of what becomes of them.
    channels = 2

    def forward(self, transformed: Tensor, kernel_size: int) -> Tensor:
        """Maps transformed coordinates [1, channels, H, W].

        Returns:
          [1, channels, K, P].
        """
        raise NotImplementedError(
            f"{type(self).__name__}: forward must say where the taps lie"
        )


@gin.configurable(module="san")
class RelativePosition(Position):
    """p_i - p_j: how far each tap lies from the centre, transformed."""

    def forward(self, transformed: Tensor, kernel_size: int) -> Tensor:
        """Maps transformed coordinates [1, 2, H, W] to [1, 2, K, P]."""
        return window_ops().subtraction(transformed, **same_window(kernel_size))


@gin.configurable(module="san")
class AbsolutePosition(Position):
    """p_j: where each tap lies in the image, transformed.

    The paper does not define its absolute position. This is the reading of
    three that fit its figures which can prefer a direction, but not what is
    near: coordinates as of CoordConv (NeurIPS 2018), joined to the relation
    without a difference.
    """

    def forward(self, transformed: Tensor, kernel_size: int) -> Tensor:
        """Maps transformed coordinates [1, 2, H, W] to [1, 2, K, P]."""
        return taps(transformed, kernel_size)


POSITIONS: dict[str, Callable[[], Position] | None] = {
    "none": None,
    "absolute": AbsolutePosition,
    "relative": RelativePosition,
}


class AxialEmbedding(nn.Module):
    """Learned vectors of the footprint's rows and columns, for queries.

    The first half of a query's channels meets the vector of the tap's row,
    the second half that of its column. Source: "Stand-Alone Self-Attention in
    Vision Models", NeurIPS 2019, equation 4.

    Args:
      channels: M of a query; a multiple of 2 * num_groups.
      num_groups: G; channel c is in group c mod G.
      kernel_size: k.
    """

    def __init__(
        self, channels: int, num_groups: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.rows = nn.Parameter(torch.empty(channels // 2, kernel_size))
        self.columns = nn.Parameter(torch.empty(channels // 2, kernel_size))
        for vectors in (self.rows, self.columns):
            nn.init.normal_(vectors, std=0.02)

    def forward(self, query: Tensor) -> Tensor:
        """Maps queries [N, M, H, W] to their products [N, G, K, P]."""
        first, second = query.flatten(2).chunk(2, dim=1)
        of_rows = self._products(first, self.rows)
        of_columns = self._products(second, self.columns)
        return (of_rows.unsqueeze(3) + of_columns.unsqueeze(2)).flatten(2, 3)

    def _products(self, query: Tensor, vectors: Tensor) -> Tensor:
        """[N, M / 2, P] and [M / 2, k] to [N, G, k, P]."""
        shares = (-1, self.num_groups)
        query = query.unflatten(1, shares).unsqueeze(3)
        return (query * vectors.unflatten(0, shares).unsqueeze(3)).sum(1)
