"""Progress of work on many files: a bar on a terminal, else lines."""

import sys
import time
from typing import Self

import tqdm

_DELAY_SECONDS = 2.0  # Shorter work shows nothing.
_LINE_SECONDS = 10.0


class Progress:
    """Shows how many of the files are done, on stderr."""

    def __init__(self, title: str, total: int, *, shown: bool = True) -> None:
        """Starts at zero.

        Args:
          title: what is done, such as "looking at the images".
          total: number of files.
          shown: False shows nothing.
        """
        is_terminal = sys.stderr.isatty()
        self._title = title
        self._shows_lines = shown and not is_terminal
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            desc=title,
            unit=" images",
            delay=_DELAY_SECONDS,
            leave=False,
            disable=not (shown and is_terminal),
        )
        self._total, self._done = total, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self, count: int) -> None:
        """Counts files that are done.

        Args:
          count: how many more.
        """
        self._bar.update(count)
        self._done += count
        now = time.monotonic()
        if self._shows_lines and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = (now - self._start) * (self._total / self._done - 1)
            print(
                f"{self._title}: {self._done:,} of {self._total:,},"
                f" {left:.0f} s left",
                file=sys.stderr,
            )
