"""Training jobs as real processes that need no seconds to start.

They are forked from the test, which has imported everything; a job that is
started as a user does is jobs.start.
"""

import multiprocessing
import os
import signal
import sys
import time
from unittest import mock

from absl import app

from tests.train import jobs
from third_party import before_torch, stop_signals

_CONTEXT = multiprocessing.get_context("fork")

# For a machine with more to do.
PATIENCE = 120.0


class Job:
    """One process of //train:main; its output goes to a file."""

    def __init__(self, log, *arguments, **environment):
        self.log = log
        self.process = _CONTEXT.Process(
            target=_run, args=(log, list(map(str, arguments)), environment)
        )
        self.process.start()

    def send(self, *numbers):
        """Sends signals, one after the other."""
        for number in numbers:
            os.kill(self.process.pid, number)

    def wait_for(self, condition):
        """Waits until something is so."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.is_alive(), self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.01)

    def wait_for_output(self, text):
        """Waits until it has printed this."""
        self.wait_for(lambda: text in self.output())

    def finish(self):
        """Waits for its end: its exit code and all that it printed."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        return self.process.exitcode, self.output()

    def output(self):
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""


def start_together(count, log, *arguments, last=()):
    """Starts a job in several processes, as torchrun does.

    The last one gets more arguments.
    """
    port = jobs.free_port()
    return [
        Job(
            log.with_name(f"{log.name}{rank}"),
            *arguments,
            *(last if rank == count - 1 else ()),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(count)
    ]


def _run(log, arguments, environment):
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    # The job replaces them, and what is thrown away would close its file.
    sys.stdout, sys.stderr = (
        open(number, "w", closefd=False) for number in (1, 2)
    )
    os.environ |= environment
    for number in stop_signals.ALL:
        signal.signal(number, signal.SIG_DFL)
    stop_signals.end_at_once(stop_signals.ALL)
    # For once it comes after torch.
    with mock.patch.object(before_torch, "settings", return_value={}):
        from train import main
    app.run(main.main, [main.__file__, *arguments])
