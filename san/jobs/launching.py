"""Starts a command in several processes of this machine, one per GPU.

By torch's elastic launcher, which torchrun is made of. The processes find each
other by the environment that it gives them (san/jobs/ranks.py); signals to
this process, which computes nothing, go to all of them.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterable, Sequence
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed.elastic import multiprocessing

from san.jobs import ranks
from third_party import stop_signals

# How often the launcher looks at its processes.
_POLL_SECONDS = 0.1

# Of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def num_processes(asked: int | None) -> int:
    """How many processes this one has to start; 1 if it is to do the work.

    Args:
      asked: value of --num_processes, if given.

    Raises:
      ValueError: if the number contradicts the launcher's, or the machine.
    """
    if ranks.is_launched():
        world_size = ranks.find().world_size
        if asked not in (None, world_size):
            raise ValueError(
                "distributed: --num_processes must be left to what started the"
                f" {world_size} processes, got {asked}"
            )
        return 1
    if asked is None:
        ranks.find()  # Unless there are others, which it says.
        return max(1, torch.cuda.device_count())
    _check_number(asked)
    if asked == 1:
        os.environ["WORLD_SIZE"] = "1"  # Whatever else a SLURM job has.
    return asked


def _check_number(asked: int) -> None:
    most = torch.cuda.device_count()
    if asked < 1 or (most and asked > most):
        rule = f"lie in 1..{most}, the GPUs of" if most else "be at least 1 on"
        raise ValueError(
            f"distributed: --num_processes must {rule} this machine, got"
            f" {asked}"
        )


def launch(count: int, command: Sequence[str]) -> int:
    """Runs a command in several processes and waits for them.

    Args:
      count: the number of processes.
      command: what each of them runs, by this Python.

    Returns:
      The exit code: that of the process that failed first, or 0. Of several
      that ended at once it is one that was killed: the others notice.
    """
    # Its port is free because it is the one that is open.
    store = dist.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # Ours are below.
    # Of a process that failed it says no more than the process itself.
    logging.getLogger(multiprocessing.api.__name__).disabled = True
    local = range(count)
    with (
        tempfile.TemporaryDirectory(prefix="launch_") as folder,
        _Forwarding() as forwarding,
    ):
        context = multiprocessing.start_processes(
            "process",
            sys.executable,
            args={rank: tuple(command) for rank in local},
            envs={
                rank: _environment(rank, count, store.port) for rank in local
            },
            logs_specs=multiprocessing.DefaultLogsSpecs(log_dir=folder),
        )
        forwarding.to(context.pids().values())
        while (result := context.wait(timeout=0)) is None:
            time.sleep(_POLL_SECONDS)
    codes = [
        failure.exitcode for failure in _in_order(result.failures.values())
    ]
    if codes and all(code < 0 for code in codes):
        # None of them was left to say so.
        name = signal.Signals(-codes[0]).name
        print(f"error: all processes were ended by {name}", file=sys.stderr)
    return _exit_code(codes[0]) if codes else 0


def _in_order(
    failures: Iterable[multiprocessing.errors.ProcessFailure],
) -> list[multiprocessing.errors.ProcessFailure]:
    # Times are in seconds, and others notice a dead process sooner.
    return sorted(failures, key=lambda f: (f.exitcode >= 0, f.timestamp))


def _exit_code(code: int) -> int:
    """A process's exit code, or what a signal that ended it comes to."""
    if code > 0:
        return code
    if (number := signal.Signals(-code)) in stop_signals.WARNINGS:
        return stop_signals.exit_code(number)  # Before Python was up.
    return 128 - code


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # The launcher's, which outlives each process.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }


class _Forwarding:
    """Hands signals on to the processes, which are in no terminal's group."""

    def __init__(self) -> None:
        self._pids: tuple[int, ...] = ()
        self._early: list[int] = []

    def __enter__(self) -> Self:
        for number in stop_signals.ALL:
            if not stop_signals.is_ignored(number):
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def to(self, pids: Iterable[int]) -> None:
        """Says which processes, once they are there."""
        self._pids = tuple(pids)
        for number in self._early:
            self._send(number)

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        if not self._pids:
            self._early.append(number)
        self._send(number)

    def _send(self, number: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def end_with_launcher() -> None:
    """Has the system end this process as by SIGTERM if its launcher dies.

    Otherwise it would go on by itself, in nobody's terminal.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
