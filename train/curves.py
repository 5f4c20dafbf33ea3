"""TensorBoard curves, without which training goes on."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Mapping

from torch.utils import tensorboard

# Between two attempts to write where that did not work: a full disk may be
# emptied, a file server come back.
_RETRY_SECONDS = 60.0


class Curves:
    """Writes scalars; says once, and no more, that they cannot be written."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Starts the curves.

        Args:
          folder: where their files go.
          first_step: of this run; hides what an earlier one wrote beyond it.
        """
        self._folder = folder
        self._first_step: int | None = first_step
        self._writer: tensorboard.SummaryWriter | None = None
        self._next_attempt = time.monotonic()
        self._has_warned = False

    def draw(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a point to each curve."""

        def draw(writer: tensorboard.SummaryWriter) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

        self._attempt(draw)

    def flush(self) -> None:
        """Sees to it that all points are on the disk."""
        self._attempt(lambda writer: writer.flush())

    def close(self) -> None:
        """Ends the curves."""
        self._attempt(lambda writer: writer.close())

    def _attempt(
        self, action: Callable[[tensorboard.SummaryWriter], None]
    ) -> None:
        if self._writer is None and time.monotonic() < self._next_attempt:
            return
        try:
            if self._writer is None:
                self._writer = tensorboard.SummaryWriter(
                    self._folder, purge_step=self._first_step
                )
                self._first_step = None
            action(self._writer)
        except OSError as error:
            with contextlib.suppress(OSError):
                if self._writer is not None:
                    self._writer.close()  # What can be saved of it.
            self._writer = None
            self._next_attempt = time.monotonic() + _RETRY_SECONDS
            if not self._has_warned:
                self._has_warned = True
                print(
                    f"warning: no curves are written to {self._folder}"
                    f" ({error.strerror or error}); training goes on",
                    file=sys.stderr,
                )
