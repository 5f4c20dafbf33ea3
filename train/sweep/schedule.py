"""Starts the runs of an ablation, each in a process of its own.

So each has its own configuration, random numbers and memory, and one that
crashes takes no other along. A run is //train:main, with its messages in a
file; it resumes, and stops after a signal, as it does anywhere. One at a time
starts processes for all GPUs, as it does anywhere, too; of several at the same
time each is one process on one GPU.
"""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

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


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    device: str | None


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
    running: list[_Running] = []
    errors: dict[str, str] = {}
    devices = cuda_devices() if num_parallel > 1 else []
    with Interruption() as interruption:
        # The runs save first.
        interruption.postpone()
        try:
            while (waiting or running) and not interruption.received:
                while waiting and len(running) < num_parallel:
                    job = waiting.popleft()
                    if job.run.row not in errors:
                        observer.started(job)
                        device = _least_used(devices, running)
                        running.append(_start(job, num_parallel, device))
                time.sleep(_POLL_SECONDS)
                running = _still_running(running, errors, observer)
        finally:
            _stop([run.process for run in running])
        if interruption.received:
            ended = [run.process.returncode for run in running]
            left = len(waiting) + sum(code != 0 for code in ended)
            raise InterruptionError(
                f"stopped with {left} runs left. The same command goes on from"
                " there",
                interruption.received,
            )
    return errors


def _still_running(
    running: Sequence[_Running], errors: dict[str, str], observer: Observer
) -> list[_Running]:
    """Those that have not ended; tells of the others."""
    left = []
    for run in running:
        code = run.process.poll()
        if code is None:
            left.append(run)
        elif code == 0:
            observer.finished(run.job)
        else:
            error = _error(run.job, code)
            errors.setdefault(run.job.run.row, error)
            observer.failed(run.job, error)
    return left


def _start(job: Job, num_parallel: int, device: str | None) -> _Running:
    alone = ["--num_processes=1"] * (num_parallel > 1)
    job.folder.path.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "train.main", *job.arguments, *alone],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(num_parallel, device),
            # Ctrl-C is for this process alone, which passes it on once: a
            # second signal would end the run before it has saved.
            process_group=0,
            preexec_fn=_end_with_parent,
        )
    return _Running(job, process, device)


def _environment(num_parallel: int, device: str | None) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    if num_parallel > 1:
        threads = max(1, num_cores() // num_parallel)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environment


def cuda_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [*map(str, range(count))]


def _least_used(
    devices: Sequence[str], running: Sequence[_Running]
) -> str | None:
    """The GPU for another run; None where there is none."""
    used = collections.Counter(run.device for run in running)
    return min(devices, key=lambda device: used[device], default=None)


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
