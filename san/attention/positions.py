"""What the relation learns of where two pixels lie.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020, section
3.1; its table 8 compares what there is. Coordinates are in
`san.ops.positions`.

Shape letters: K taps of the footprint, P pixels.
"""

from torch import Tensor, nn

from san.attention.window_ops import same_window, window_ops


class RelativePosition(nn.Module):
    """p_i - p_j: how far each tap lies from the centre, transformed."""

    # Of the coordinates and of what becomes of them.
    channels = 2

    def forward(self, transformed: Tensor, kernel_size: int) -> Tensor:
        """Maps transformed coordinates [1, 2, H, W] to [1, 2, K, P]."""
        return window_ops().subtraction(transformed, **same_window(kernel_size))
