"""Whatever becomes of the log and the curves, training goes on."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator
from torch.utils import tensorboard

from tests.train import forked, jobs
from train import metrics, sinks
from train.curves import Curves
from train.metrics import Metrics


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def arguments(tmp_path, images):
    return [
        f"--gin_file={jobs.write_settings(tmp_path)}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
    ]


def draw(drawn, step):
    """A point of an epoch of many steps."""
    place = {"epoch": 1, "step": step}
    drawn.draw(sinks.Point("train", step, place, {"loss": 1.0}))


def assert_finished(tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    assert torch.load(last, weights_only=True)["epoch"] == 2
    assert (tmp_path / "run" / "operative.gin").exists()


def test_the_reader_of_a_pipe_goes(tmp_path, arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "train.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(240) == 0
    assert_finished(tmp_path)


@pytest.mark.parametrize(
    "streams",
    [">/dev/full 2>&1", ">&- 2>&- <&-"],
    ids=["full", "closed"],
)
def test_a_log_that_takes_nothing(tmp_path, arguments, streams):
    command = f'exec "$@" {streams}'
    job = [sys.executable, "-m", "train.main", *arguments]
    found = subprocess.run(
        ["sh", "-c", command, "-", *job],
        timeout=240,
    )
    assert found.returncode == 0
    assert_finished(tmp_path)


def test_curves_that_cannot_be_written(tmp_path, arguments):
    for name in ("metrics.jsonl", "examples.png"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "tensorboard").write_text("a file in their place")
    code, output = forked.Job(tmp_path / "log", *arguments).finish()
    assert code == 0, output
    for content in ("curves", "metrics", "examples"):
        assert output.count(f"warning: no {content} are written to") == 1
    assert_finished(tmp_path)


def test_what_cannot_be_written_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sinks, "_RETRY_SECONDS", 0.0)
    drawn = sinks.Sinks(
        [Curves(tmp_path, 1), Metrics(tmp_path / "metrics.jsonl", 0, 0)]
    )
    draw(drawn, 1)
    write = tensorboard.SummaryWriter.add_scalar

    def fail(writer, name, value, step):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", fail)
    for step in (2, 3):
        draw(drawn, step)
    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", write)
    draw(drawn, 4)
    drawn.close()
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 4]
    said = capsys.readouterr().err
    assert said.count("no curves are written") == 1 and "No space left" in said
    # One that fails is no matter of the others.
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [line["global_step"] for line in lines] == [1, 2, 3, 4]
    assert "metrics" not in said


def test_a_log_that_is_slow_to_be_read(tmp_path, arguments):
    """A pipe that must not be waited for, and is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, b"x" * (1 << 16))
    process = subprocess.Popen(
        [sys.executable, "-m", "train.main", *arguments],
        stdout=writer,
        stderr=writer,
    )
    assert process.wait(240) == 0
    assert_finished(tmp_path)
    os.close(writer)
    os.close(reader)
