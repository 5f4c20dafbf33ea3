"""Starts the runs of an ablation, each in a process of its own.

So each has its own configuration, random numbers and memory, and one that
crashes takes no other along. A run is //train:main, with its messages in a
file; it resumes, and stops after a signal, as it does anywhere.
"""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from train.interruption import Interruption, InterruptionError
from train.sweep.job import Job

_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


class Observer(Protocol):
    """Is told what happens."""

    def started(self, job: Job) -> None:
        """A run begins, or goes on."""

    def finished(self, job: Job) -> None:
        """A run is complete."""

    def failed(self, job: Job, error: str) -> None:
        """A run ended in an error; its row is given up."""


def train_all(
    jobs: Sequence[Job], num_parallel: int, observer: Observer
) -> dict[str, str]:
    """Trains what is left of every run.

    After a failure the other runs of that row are not started.

    Args:
      jobs: the runs, in their order.
      num_parallel: how many are trained at the same time.
      observer: is told what happens.

    Returns:
      The error of each row that failed, by the row's name.

    Raises:
      InterruptionError: on SIGTERM or Ctrl-C, after all runs have saved.
    """
    waiting = collections.deque(jobs)
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    errors: dict[str, str] = {}
    with Interruption() as interruption:
        # The runs save first.
        interruption.postpone()
        try:
            while (waiting or running) and not interruption.received:
                while waiting and len(running) < num_parallel:
                    job = waiting.popleft()
                    if job.run.row not in errors:
                        observer.started(job)
                        child = _start(job, num_parallel)
                        running[child.pid] = job, child
                time.sleep(_POLL_SECONDS)
                _collect(running, errors, observer)
        finally:
            _stop([child for _, child in running.values()])
        if interruption.received:
            ended = [child.returncode for _, child in running.values()]
            left = len(waiting) + sum(code != 0 for code in ended)
            raise InterruptionError(
                f"stopped with {left} runs left. The same command goes on from"
                " there",
                interruption.received,
            )
    return errors


def _collect(
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]],
    errors: dict[str, str],
    observer: Observer,
) -> None:
    """Takes the runs that have ended out of those that are running."""
    ended = [pid for pid in running if running[pid][1].poll() is not None]
    for pid in ended:
        job, child = running.pop(pid)
        if child.returncode == 0:
            observer.finished(job)
        else:
            error = _error(job, child.returncode)
            errors.setdefault(job.run.row, error)
            observer.failed(job, error)


def _start(job: Job, num_parallel: int) -> subprocess.Popen[bytes]:
    job.folder.path.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "train.main", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(num_parallel),
            # Ctrl-C is for this process alone, which passes it on once: a
            # second signal would end the run before it has saved.
            process_group=0,
            preexec_fn=_end_with_parent,
        )


def _environment(num_parallel: int) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    if num_parallel > 1:
        threads = max(1, num_cores() // num_parallel)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _end_with_parent() -> None:
    """Has the kernel end this process when its parent is gone, also killed.

    It would hold the work folder and go on beside the one that the same
    command starts next.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes as SIGTERM does: each saves where it stands."""
    for child in children:
        child.terminate()
    for child in children:
        child.wait()


def _error(job: Job, code: int) -> str:
    """A line on why a run failed."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}, see {job.log}"
    lines = job.log.read_text(errors="replace").split("\n")
    said = [line for line in lines if line.strip()] or [f"exit code {code}"]
    return said[-1].removeprefix("error: ")
