"""How the jobs' main functions end: a user's mistake is one clear line.

No job and no flags in here: a job is a command's own, flags are in flags.py.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
import tqdm
from absl import logging

from san.jobs import config

# Exit codes.
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
UNREAD = 141  # As of a program that SIGPIPE has ended.

# What torch says of memory on the CPU, in a RuntimeError.
_NO_MEMORY = "can't allocate memory"


class StopError(BaseException):
    """The job was asked to stop, and did so in good order.

    Not an Exception, like KeyboardInterrupt: whoever means to handle errors
    does not mean this.

    Attributes:
      exit_code: that the command ends with.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def run(job: Callable[[], None]) -> int:
    """Runs a job; prints what the user can mend instead of a traceback.

    With --verbosity=1 the traceback is printed as well.

    Returns:
      The exit code: 0, or 1 if something failed on the way (a file, the
      loss, memory), or 2 if a flag, a setting or the data was wrong, or a
      signal's; SIGPIPE's if nobody reads what is printed any more (`| head`).
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # The imports are over, see third_party/stop_signals.py.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Bars have a lock between processes by default, and Python 3.14 complains
    # at the end that it was left behind.
    tqdm.tqdm.set_lock(threading.RLock())
    try:
        job()
        sys.stdout.flush()
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return UNREAD
        if is_fault(error):
            raise
        logging.debug("traceback", exc_info=error)
        text, exit_code = describe(error)
        print(text, file=sys.stderr)
        return exit_code
    return 0


def leave(exit_code: int) -> NoReturn:
    """Ends the process without taking the interpreter apart.

    Threads of torch's that wait for other processes would call into it, and
    abort: "terminate called without an active exception".
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    os._exit(exit_code)


def is_fault(error: BaseException) -> bool:
    """Whether an error is nothing that the user could mend."""
    if _is_memory(error):
        return False
    if isinstance(error, RuntimeError):
        return not config.is_unbound(error)
    return not isinstance(
        error,
        KeyboardInterrupt | StopError | OSError | ArithmeticError | ValueError,
    )


def describe(error: BaseException) -> tuple[str, int]:
    """What to print when a job ends with an error, and its exit code."""
    if is_fault(error):
        return "".join(traceback.format_exception(error)).rstrip(), FAILED
    if isinstance(error, StopError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if _is_memory(error):
        said, _, _ = str(error).partition("\n")
        return (
            f"error: memory must be enough, got {said or type(error).__name__};"
            " smaller images or a smaller batch need less",
            FAILED,
        )
    text = f"error: {config.without_place(error)}"
    if isinstance(error, RuntimeError):
        text += "; is a --gin_file missing, such as san10_pair.gin?"
    failed = isinstance(error, OSError | ArithmeticError)
    return text, FAILED if failed else WRONG_USE


def _is_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY in str(error)


def _is_unread() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def check_no_arguments(arguments: Sequence[str]) -> None:
    """Raises ValueError if something on the command line is not a flag."""
    if arguments:
        raise ValueError(
            "command line: everything must be a flag (--name=value), got"
            f" {' '.join(arguments)!r}; --help lists them"
        )
