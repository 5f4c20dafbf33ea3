"""What keeps the figures of a run; without any of it training goes on.

Each kind of sink is a file of its own: curves.py, metrics.py, pictures.py.
"""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# Between two attempts to write where that did not work: a full disk may be
# emptied, a file server come back.
_RETRY_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Point:
    """What is known of a run at one moment.

    Attributes:
      kind: "train", of the steps since the last one, or "validation".
      step: optimiser steps since the beginning of training.
      place: what else says when it was, by name.
      figures: what was measured, by name.
    """

    kind: str
    step: int
    place: Mapping[str, Any]
    figures: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Something to look at.

    Attributes:
      name: what of: "examples" or "footprints".
      step: optimiser steps since the beginning of training.
      pixels: uint8 [height, width, 3].
      words: what is on it.
    """

    name: str
    step: int
    pixels: np.ndarray
    words: str


class Sink:
    """Keeps figures of one kind, and leaves out what it has no place for.

    Each method may raise an OSError; then the sink is closed, and opened again
    later.

    Attributes:
      content: what it keeps, for people.
      path: where.
    """

    content: str
    path: pathlib.Path

    def open(self) -> None:
        """Gets ready to write."""

    def draw(self, point: Point) -> None:
        """Keeps figures."""

    def show(self, picture: Picture) -> None:
        """Keeps a picture."""

    def flush(self) -> None:
        """Sees to it that everything is on the disk."""

    def close(self) -> None:
        """Ends writing; also after an error, and without having opened."""


class Sinks:
    """Writes to several sinks; says of each once if it cannot be written."""

    def __init__(self, sinks: Sequence[Sink]):
        self._sinks = [_Attempts(sink) for sink in sinks]

    def draw(self, point: Point) -> None:
        """Keeps figures."""
        self._attempt(lambda sink: sink.draw(point))

    def show(self, picture: Picture) -> None:
        """Keeps a picture."""
        self._attempt(lambda sink: sink.show(picture))

    def flush(self) -> None:
        """Sees to it that everything is on the disk."""
        self._attempt(lambda sink: sink.flush())

    def close(self) -> None:
        """Ends writing."""
        self._attempt(lambda sink: sink.close())

    def _attempt(self, action: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            sink.attempt(action)


class _Attempts:
    """Tries to write to a sink, and again later where that fails."""

    def __init__(self, sink: Sink):
        self._sink = sink
        self._is_open = False
        self._next_attempt = time.monotonic()
        self._has_warned = False

    def attempt(self, action: Callable[[Sink], None]) -> None:
        """Does something with the sink, unless it failed a moment ago."""
        if not self._is_open and time.monotonic() < self._next_attempt:
            return
        try:
            if not self._is_open:
                self._sink.open()
                self._is_open = True
            action(self._sink)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._sink.close()  # What can be saved of it.
            self._is_open = False
            self._next_attempt = time.monotonic() + _RETRY_SECONDS
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        print(
            f"warning: no {self._sink.content} are written to"
            f" {self._sink.path} ({error.strerror or error}); training goes"
            " on",
            file=sys.stderr,
        )
