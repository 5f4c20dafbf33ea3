"""Which processes an ablation starts for its runs, and with what.

In place of //train:main is a file that writes down how it was started.
"""

import json

import pytest
import torch

from train.sweep import schedule
from train.sweep.job import Job
from train.sweep.plan import Run
from train.work_folder import WorkFolder

MAIN = """
import json, os, pathlib, sys, time
name, waits_for, *rest = sys.argv[1:]
path = pathlib.Path(__file__).parent
said = [os.environ.get("CUDA_VISIBLE_DEVICES"), rest]
(path / f"{name}.tmp").write_text(json.dumps(said))
(path / f"{name}.tmp").rename(path / name)
end = time.monotonic() + 60
while waits_for and not (path / waits_for).exists():
    assert time.monotonic() < end
    time.sleep(0.01)
"""


class Silent:
    """Who is told what happens."""

    def __init__(self):
        self.ended = []

    def started(self, job):
        pass

    def finished(self, job):
        self.ended.append(job.arguments[0])

    def failed(self, job, error):
        raise AssertionError(error)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Trains jobs, each of which waits for another to start; what they saw."""
    package = tmp_path / "train"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(MAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # Not from this folder.

    def start(num_parallel, waits_for):
        jobs = [
            Job(
                Run(f"row{name}", 0, None),
                WorkFolder(tmp_path / f"run{name}"),
                [name, other],
                1,
            )
            for name, other in waits_for.items()
        ]
        observer = Silent()
        assert schedule.train_all(jobs, num_parallel, observer) == {}
        assert sorted(observer.ended) == sorted(waits_for)
        return {
            name: json.loads((package / name).read_text()) for name in waits_for
        }

    return start


def gpus(monkeypatch, count, named=None):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)


ALONE = ["--num_processes=1"]


def test_several_have_a_gpu_each(monkeypatch, start):
    gpus(monkeypatch, 2)
    # The third starts when the second has ended.
    found = start(2, {"a": "c", "b": "", "c": ""})
    assert found == {"a": ["0", ALONE], "b": ["1", ALONE], "c": ["1", ALONE]}


def test_of_the_gpus_that_are_visible(monkeypatch, start):
    gpus(monkeypatch, 2, "GPU-5a,3")
    found = start(2, {"a": "b", "b": "a"})
    assert found == {"a": ["GPU-5a", ALONE], "b": ["3", ALONE]}


def test_more_of_them_than_gpus_share(monkeypatch, start):
    gpus(monkeypatch, 2)
    found = start(3, {"a": "c", "b": "c", "c": ""})
    assert [found[name][0] for name in "abc"] == ["0", "1", "0"]


def test_one_at_a_time_has_all_gpus(monkeypatch, start):
    gpus(monkeypatch, 2, "4,5")
    assert start(1, {"a": "", "b": ""}) == {"a": ["4,5", []], "b": ["4,5", []]}


def test_without_gpus(monkeypatch, start):
    gpus(monkeypatch, 0)
    assert start(2, {"a": "b", "b": ""}) == {
        "a": [None, ALONE],
        "b": [None, ALONE],
    }
