"""Decoded windows in, network input out: resizes as PIL does, and normalises.

PIL's antialiased bilinear filter is a triangle whose weights inside the window
sum to one, also at its border. On the CPU it is a kernel of this project, on
CUDA torch's own filter. No file is read here.
"""

from collections.abc import Iterator, Sequence

import torch

from san.data.plan import Crops
from san.data.settings import Data
from san.ops import resize

# F.interpolate takes a size or a scale; a window that ends where the square
# does needs both.
_filter = torch.ops.aten._upsample_bilinear2d_aa


def square_by_torch(
    window: torch.Tensor, side: int, scales: Sequence[float], corner: list[int]
) -> torch.Tensor:
    """A square of a resized window, on any device.

    Args:
      window: uint8 [height, width, 3].
      side: of the square, in pixels.
      scales: window pixels for one pixel of the resized window, by axis.
      corner: top, left of the square in the resized window.

    Returns:
      float32 [3, side, side], grey levels, whole numbers.
    """
    top, left = corner
    (resized,) = _filter(
        window[None].permute(0, 3, 1, 2).float(),
        [top + side, left + side],
        False,
        *(1 / scale for scale in scales),
    )
    return resized[:, top:, left:].round()


class Resizer:
    """Makes batches of normalised squares, on the CPU or with CUDA."""

    def __init__(self, data: Data, device: torch.device) -> None:
        """Prepares the normalisation.

        Args:
          data: image size, mean and std.
          device: where the windows and the batches lie.
        """
        self._side = data.image_size
        self._device = device
        self._shift = [255 * mean for mean in data.mean]
        self._factor = [1 / (255 * std) for std in data.std]
        # On the device, so that no batch waits for a copy to it.
        self._constants = [
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (self._shift, self._factor)
        ]
        self._in_use: tuple[Sequence[torch.Tensor], torch.cuda.Event] | None
        self._in_use = None

    def __call__(
        self, windows: Sequence[torch.Tensor], crops: Crops
    ) -> torch.Tensor:
        """Resizes, cuts, flips and normalises.

        Args:
          windows: uint8 [height, width, 3], n of them.
          crops: what becomes of each.

        Returns:
          float32 [n, 3, image_size, image_size].
        """
        if self._device.type == "cuda":
            return self._normalize(self._levels(windows, crops))
        return self._on_cpu(windows, crops, self._shift, self._factor)

    def squares(
        self, windows: Sequence[torch.Tensor], crops: Crops
    ) -> torch.Tensor:
        """Resizes, cuts and flips: uint8 [n, image_size, image_size, 3]."""
        levels = self._levels(windows, crops)
        return levels.permute(0, 2, 3, 1).to(
            torch.uint8, memory_format=torch.contiguous_format
        )

    def normalized(self, squares: torch.Tensor) -> torch.Tensor:
        """Squares as float32 [n, 3, image_size, image_size], normalised."""
        return self._normalize(
            squares.permute(0, 3, 1, 2).to(
                torch.float32, memory_format=torch.contiguous_format
            )
        )

    def _normalize(self, levels: torch.Tensor) -> torch.Tensor:
        """Normalises grey levels [n, 3, side, side] in place."""
        shift, factor = self._constants
        return levels.sub_(shift).mul_(factor)

    def _levels(
        self, windows: Sequence[torch.Tensor], crops: Crops
    ) -> torch.Tensor:
        """The squares' grey levels: float32 [n, 3, side, side]."""
        if self._device.type == "cuda":
            return self._on_cuda(windows, crops)
        return self._on_cpu(windows, crops, [0.0] * 3, [1.0] * 3)

    def _on_cpu(
        self,
        windows: Sequence[torch.Tensor],
        crops: Crops,
        shift: list[float],
        factor: list[float],
    ) -> torch.Tensor:
        batch = self._empty(len(windows))
        for window, square, scales, corner, flip in _jobs(
            windows, batch, crops
        ):
            resize.write_square(
                window,
                square,
                scales=scales,
                corner=corner,
                mirrored=flip,
                shift=shift,
                factor=factor,
            )
        return batch

    def _on_cuda(
        self, windows: Sequence[torch.Tensor], crops: Crops
    ) -> torch.Tensor:
        batch = self._empty(len(windows))
        for window, square, scales, corner, flip in _jobs(
            windows, batch, crops
        ):
            levels = square_by_torch(window, self._side, scales, corner)
            square.copy_(levels.flip(2) if flip else levels)
        self._keep(windows)
        return batch

    def _empty(self, count: int) -> torch.Tensor:
        return torch.empty(
            (count, 3, self._side, self._side), device=self._device
        )

    def _keep(self, windows: Sequence[torch.Tensor]) -> None:
        """Keeps windows until CUDA has read them.

        Their owner may fill them again as soon as they are let go.
        """
        if self._in_use:
            _, read = self._in_use
            read.synchronize()
        stream = torch.cuda.current_stream(self._device)
        self._in_use = windows, stream.record_event()


def _jobs(
    windows: Sequence[torch.Tensor], batch: torch.Tensor, crops: Crops
) -> Iterator[tuple]:
    """Each window, its square in the batch, and what is done to it."""
    return zip(
        windows,
        batch,
        crops.scales.tolist(),
        crops.corners.tolist(),
        crops.flips.tolist(),
        strict=True,
    )
