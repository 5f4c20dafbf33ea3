"""The signals that ask a command to stop, and what they do while it starts.

Not in san, whose import takes the seconds in which this is needed.
"""

import os
import signal
import types
from collections.abc import Iterable

# A scheduler's warnings: it is about to end the job, or to move it.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

# The later in the list, the more it decides where processes got different
# ones.
ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *WARNINGS)

# EX_TEMPFAIL of sysexits.h: all is saved, run me again.
RUN_AGAIN = 75


def exit_code(received: signal.Signals) -> int:
    """The exit code of a command that a signal has stopped in good order.

    75 after a scheduler's warning, else what shells expect of a process that
    was ended by the signal, such as 143 for SIGTERM.
    """
    return RUN_AGAIN if received in WARNINGS else 128 + received


def end_at_once(numbers: Iterable[signal.Signals]) -> None:
    """From now on the process ends in a line on these signals."""
    for number in numbers:
        if not is_ignored(number):
            signal.signal(number, _end)


def is_ignored(number: signal.Signals) -> bool:
    """Whether the process was started without this signal, as by nohup."""
    return (
        number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
    )


def _end(number: int, frame: types.FrameType | None) -> None:
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        # One of several processes says so.
        write_line("interrupted while starting")
    os._exit(exit_code(signal.Signals(number)))


def write_line(text: str) -> None:
    """Writes a line on stderr, from a signal handler or any thread.

    Not print, in the middle of which the signal may have come; and whatever
    has become of stderr.
    """
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass
