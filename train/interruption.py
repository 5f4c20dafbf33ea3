"""Signals: training stops between two steps, with a checkpoint.

Whatever asks for a stop, and however often, it is one request. A second
Ctrl-C on a terminal, or a stop that takes too long, ends the process unsaved.
"""

import os
import select
import signal
import sys
import threading
import time
import types
from typing import Self

from san.jobs import processes
from san.jobs.entry import StopError
from third_party import stop_signals
from third_party.stop_signals import write_line

# Before training starts nothing has to be saved.
_STARTING_SECONDS = 5.0
_NOTHING_LOST = (
    "stopped before training went on; nothing is lost, start the same command"
    " again"
)

# What a terminal and a launcher make of one Ctrl-C comes closer together.
_SECOND_PRESS_SECONDS = 0.7


class InterruptionError(StopError):
    """Training was asked to stop, and nothing that was trained is lost."""

    def __init__(self, message: str, received: signal.Signals):
        super().__init__(message, stop_signals.exit_code(received))


class Interruption:
    """Receives signals while it is entered, or from `start` on.

    At first a signal raises InterruptionError where the program is; after
    `postpone` it is only remembered.

    Attributes:
      received: the first signal, or None.
    """

    def __init__(self, announce: bool = True, seconds: float = 120.0) -> None:
        """Prepares to receive signals.

        Args:
          announce: say on stderr that a signal came.
          seconds: after which a stop that is not done ends the process.
        """
        self._is_announced = not announce
        self._lock = threading.Lock()
        self._seconds = seconds
        self._postponed = False
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """Takes over the signals."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_writer)
        os.close(self._writer)

    def start(self) -> None:
        """Takes over the signals for good."""
        self._pipe, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python runs handlers between two steps of its own, which a process
        # that waits for another may never come to; a byte in the pipe comes.
        self._previous_writer = signal.set_wakeup_fd(
            writer, warn_on_full_buffer=False
        )
        self._writer = writer
        threading.Thread(target=self._watch, daemon=True).start()
        for number in stop_signals.ALL:
            if not stop_signals.is_ignored(number):
                self._previous[number] = signal.signal(number, self._receive)

    def postpone(self) -> None:
        """From now on there is something to save: signals have to wait."""
        self._postponed = True

    def agreed(self) -> signal.Signals | None:
        """The signal that one of the processes received; asked by all."""
        number = 0
        if self.received is not None:
            number = 1 + stop_signals.ALL.index(self.received)
        number = processes.largest(number)
        return stop_signals.ALL[number - 1] if number else None

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        if self.received is not None:
            return
        self.received = signal.Signals(number)
        if self._postponed:
            self._announce()
        else:
            raise InterruptionError(_NOTHING_LOST, self.received)

    def _watch(self) -> None:
        """Does what cannot wait for the main thread, in a thread beside it."""
        first, deadline = 0.0, None
        while True:
            if not self._wait(deadline):
                self._give_up(first)
            numbers = os.read(self._pipe, 64)
            if not numbers:
                os.close(self._pipe)
                return
            for number in stop_signals.ALL:
                if number not in numbers:
                    continue
                now = time.monotonic()
                if deadline is None:
                    first, deadline = now, now + self._begin(number)
                elif number == signal.SIGINT and _is_impatient(now - first):
                    write_line("interrupted again: ended without saving")
                    os._exit(stop_signals.exit_code(number))

    def _wait(self, deadline: float | None) -> bool:
        """Whether a signal came before the deadline."""
        seconds = deadline and max(0.0, deadline - time.monotonic())
        return bool(select.select([self._pipe], [], [], seconds)[0])

    def _begin(self, number: signal.Signals) -> float:
        """Announces a stop; the seconds that it may take."""
        self._first = number
        if not self._postponed:
            return _STARTING_SECONDS
        self._announce()
        return self._seconds

    def _announce(self) -> None:
        """Says once that a signal came; both threads may be the first."""
        with self._lock:
            if not self._is_announced:
                write_line("\nstopping as soon as everything is saved")
            self._is_announced = True

    def _give_up(self, first: float) -> None:
        if self._postponed:
            write_line(
                f"not stopped after {time.monotonic() - first:.0f} seconds:"
                " ended without saving; the same command goes on from the last"
                " checkpoint"
            )
            os._exit(128 + self._first)
        if not self._is_announced:
            write_line(_NOTHING_LOST)
        os._exit(stop_signals.exit_code(self._first))


def _is_impatient(seconds: float) -> bool:
    """Whether a second Ctrl-C, so much later, is that of a person."""
    on_terminal = any(
        stream is not None and stream.isatty()
        for stream in (sys.stdin, sys.stderr)
    )
    return on_terminal and seconds >= _SECOND_PRESS_SECONDS
