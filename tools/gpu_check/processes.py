"""Processes that may hang, die, or leave others behind.

Each leads a session of its own, so that it can be ended with all that it
started, and writes into a file: a pipe would be held open by what outlives it,
and what a killed process has said would be lost.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

_POLL_SECONDS = 0.05
# From SIGABRT, at which Python says where it hangs, to SIGKILL.
_LAST_WORDS_SECONDS = 3.0
# A process inside the driver may not even heed SIGKILL: it is left behind.
_DEATH_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class Ended(NamedTuple):
    """How a process came to its end.

    Attributes:
      code: its exit status, minus a signal's number as subprocess has it.
      why: why it was ended before its time; "" where it ended by itself.
    """

    code: int
    why: str

    @property
    def words(self) -> str:
        """Both, for a person."""
        if self.why:
            return self.why
        if self.code < 0:
            return f"died of {signal.Signals(-self.code).name}"
        return f"exit code {self.code}"


def run(
    command: Sequence[str],
    log: pathlib.Path,
    seconds: float,
    environment: Mapping[str, str],
    cwd: pathlib.Path,
    enough: Callable[[], str] = lambda: "",
) -> Ended:
    """Runs a command to its end, or to the end of its time.

    Args:
      command: program and arguments.
      log: what it writes is added to this file.
      seconds: it may take.
      environment: its environment variables, all of them.
      cwd: where it runs.
      enough: is asked all the time, and says why the command must end now.

    Returns:
      Its end, after which nothing that it started is left.
    """
    deadline = time.monotonic() + seconds
    with _started(command, log, environment, cwd) as process:
        while process.poll() is None:
            why = enough()
            if time.monotonic() > deadline:
                why = why or f"took longer than {seconds:.0f} s"
            if why:
                return Ended(_end(process), why + _left_behind(process))
            time.sleep(_POLL_SECONDS)
    return Ended(process.returncode, "")


def run_all(
    commands: Sequence[Sequence[str]],
    log: pathlib.Path,
    seconds: float,
    environment: Mapping[str, str],
    cwd: pathlib.Path,
) -> Ended:
    """Runs commands side by side, one on each core.

    Args:
      commands: programs and arguments.
      log: what all of them write is added to this file.
      seconds: they may take together.
      environment: their environment variables, all of them.
      cwd: where they run.

    Returns:
      The first end that was no success; the others end with it.
    """
    deadline = time.monotonic() + seconds
    waiting, running = list(commands), list[subprocess.Popen[bytes]]()
    with contextlib.ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < len(os.sched_getaffinity(0)):
                start = _started(waiting.pop(0), log, environment, cwd)
                running.append(stack.enter_context(start))
            for process in [p for p in running if p.poll() is not None]:
                running.remove(process)
                if process.returncode:
                    return Ended(process.returncode, "")
            if time.monotonic() > deadline:
                return Ended(1, f"took longer than {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
    return Ended(0, "")


@contextlib.contextmanager
def _started(
    command: Sequence[str],
    log: pathlib.Path,
    environment: Mapping[str, str],
    cwd: pathlib.Path,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process; at the end of the block it is gone with all it started."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        _signal_group(process, signal.SIGKILL)
        _wait(process, _DEATH_SECONDS)


def _die_with_parent() -> None:
    """If we are killed, no process of ours keeps the GPU."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends a process; returns its exit status, or 1 if it cannot be ended."""
    process.send_signal(signal.SIGABRT)
    _wait(process, _LAST_WORDS_SECONDS)
    _signal_group(process, signal.SIGKILL)
    _wait(process, _DEATH_SECONDS)
    return 1 if process.returncode is None else process.returncode


def _left_behind(process: subprocess.Popen[bytes]) -> str:
    if process.returncode is not None:
        return ""
    return f"; process {process.pid} does not heed SIGKILL and was left behind"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _signal_group(
    process: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    # The session's number is its leader's. It stays taken while anyone is in
    # it, and nobody is where there is no such group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
