"""A pytest plugin that writes down each test as it starts and ends.

What pytest itself reports at its end is lost where it is killed, hangs or dies.
A test that was started by an earlier run into the same file is not run again,
so that what killed one process does not keep the rest from running.
"""

import os
import pathlib

import pytest

from tools.gpu_check.events import read, write

_TEXT = 4000  # Characters of a failure that are kept.


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file to write to."""
    parser.addoption("--record", type=pathlib.Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Starts recording."""
    config.pluginmanager.register(Recorder(config.getoption("record")))


class Recorder:
    """Writes events: found, unreadable, started, ended, lost, complete."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._done = {event.get("started") for event in read(path)}
        self._reports: list[pytest.TestReport] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported."""
        if report.failed:
            text = report.longreprtext[-_TEXT:]
            write(self._path, unreadable=report.nodeid, text=text)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out what an earlier run has started."""
        items[:] = [item for item in items if item.nodeid not in self._done]
        write(self._path, found=[item.nodeid for item in items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """The test that is to blame if nothing follows."""
        self._reports = []
        write(self._path, started=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call or teardown."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """The worst of the three; ends a process whose GPU is lost."""
        worst = max(self._reports, key=lambda r: (r.failed, r.skipped))
        text = "" if worst.passed else worst.longreprtext[-_TEXT:]
        write(self._path, ended=nodeid, outcome=worst.outcome, text=text)
        lost = _why_lost() if worst.failed else ""
        if lost:
            write(self._path, lost=nodeid, text=lost)
            # Each test to come would fail of this, and what the destructors
            # do now is anybody's guess.
            os._exit(1)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """What was found has been run, unless pytest itself has failed."""
        write(self._path, complete=int(exitstatus))


def _why_lost() -> str:
    """After an illegal access no call of this process will work any more."""
    import torch

    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).split("\n")[0]
    return ""
