"""TensorBoard: curves of the figures, and images."""

import pathlib

from torch.utils import tensorboard

from train.sinks import Picture, Point, Sink


class Curves(Sink):
    """Draws each figure as a curve over the steps."""

    content = "curves"

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Prepares to write.

        Args:
          folder: where the files go.
          first_step: of this run; hides what an earlier one wrote beyond it.
        """
        self.path = folder
        self._first_step: int | None = first_step
        self._writer: tensorboard.SummaryWriter | None = None

    def open(self) -> None:
        """Starts a file."""
        self._writer = tensorboard.SummaryWriter(
            self.path, purge_step=self._first_step
        )
        self._first_step = None

    def draw(self, point: Point) -> None:
        """Adds a point to each curve."""
        assert self._writer is not None
        for name, value in point.figures.items():
            self._writer.add_scalar(f"{point.kind}/{name}", value, point.step)

    def show(self, picture: Picture) -> None:
        """Adds the picture, and its words."""
        assert self._writer is not None
        self._writer.add_image(
            picture.name, picture.pixels, picture.step, dataformats="HWC"
        )
        self._writer.add_text(picture.name, picture.words, picture.step)

    def flush(self) -> None:
        """Sees to it that all points are on the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
