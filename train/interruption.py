"""SIGTERM and Ctrl-C: training stops between two steps, with a checkpoint."""

import os
import signal
import types
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptionError(Exception):
    """Training was asked to stop and has saved where it stands.

    Attributes:
      exit_code: what shells expect of a process ended by that signal.
    """

    def __init__(self, message: str, received: signal.Signals | None):
        super().__init__(message)
        # None: another process of the group received it.
        self.exit_code = 128 + (received or signal.SIGTERM)


class Interruption:
    """Remembers the first signal while it is entered.

    A second one acts as if this class were not there.

    Attributes:
      received: the signal, or None.
    """

    def __init__(self, announce: bool) -> None:
        """Prepares to receive signals.

        Args:
          announce: say on stderr that a signal came.
        """
        self._announce = announce
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """Takes over the signals."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()
        if self._announce:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping as soon as everything is saved\n")
