"""Every way to ask training for a stop."""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
import torch

from eval import validation
from san.data import scan
from tests.train import forked, jobs

CODES = {
    signal.SIGTERM: 143,
    signal.SIGINT: 130,
    signal.SIGHUP: 129,
    signal.SIGUSR1: 75,
    signal.SIGUSR2: 75,
    signal.SIGXCPU: 75,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def arguments(tmp_path, images):
    """The command line of a run that would take for ever."""
    return [
        f"--gin_file={jobs.write_settings(tmp_path)}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
        "--epochs=100000",
    ]


def checkpoint(tmp_path):
    return tmp_path / "run" / "checkpoints" / "last.pth"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_saves_and_says_how_to_go_on(
    tmp_path, arguments, number, times
):
    job = forked.Job(tmp_path / "log", *arguments)
    job.wait_for(checkpoint(tmp_path).exists)
    job.send(*[number] * times)
    code, output = job.finish()
    assert code == CODES[number], output
    *_, announcement, last = output.splitlines()
    assert announcement == "stopping as soon as everything is saved"
    assert last.startswith("stopped in ")
    assert f"same command goes on from there: {checkpoint(tmp_path)}" in last
    assert "Traceback" not in output
    torch.load(checkpoint(tmp_path), weights_only=True)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        # What torchrun and schedulers make of a stop: each one gets it twice.
        ([[signal.SIGTERM] * 2] * 2, 143),
        # One process alone, and a time limit after its warning.
        ([[], [signal.SIGTERM]], 143),
        ([[signal.SIGUSR1, signal.SIGTERM], [signal.SIGTERM]], 75),
    ],
)
def test_two_processes_stop_together(tmp_path, arguments, numbers, code):
    both = forked.start_together(2, tmp_path / "log", *arguments)
    both[0].wait_for(checkpoint(tmp_path).exists)
    for job, received in zip(both, numbers, strict=True):
        job.send(*received)
    (first, output), (second, silent) = [job.finish() for job in both]
    assert (first, second) == (code, code), output + silent
    assert output.splitlines()[-1].startswith("stopped in ")
    assert "stopped in" not in silent and "Traceback" not in output + silent


def test_in_a_long_validation_nothing_trained_is_lost(
    tmp_path, images, arguments
):
    count = validation._count

    def count_slowly(*batch):
        time.sleep(2)
        count(*batch)

    with mock.patch.object(validation, "_count", count_slowly):
        job = forked.Job(tmp_path / "log", *arguments)
    job.wait_for(checkpoint(tmp_path).exists)
    start = time.monotonic()
    job.send(signal.SIGTERM)
    code, output = job.finish()
    assert code == 143
    assert time.monotonic() - start < 30
    assert "stopped in the validation of epoch 1" in output
    state = torch.load(checkpoint(tmp_path), weights_only=True)["state"]
    assert (state["epoch"], state["step"]) == (0, 4)
    # The validation comes first when it goes on.
    whole = jobs.train_alone(tmp_path / "whole", images, epochs=1)
    resumed = jobs.train_alone(tmp_path / "run", images, epochs=1)
    for folder in (whole, resumed):
        assert torch.load(folder.last, weights_only=True)["epoch"] == 1
    jobs.assert_same_bits(jobs.weights(whole), jobs.weights(resumed))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_while_the_images_are_looked_at(
    tmp_path, arguments, monkeypatch, number
):
    def slow(root, file):
        time.sleep(0.2)
        return 16, 18

    monkeypatch.setattr(scan, "measure", slow)
    monkeypatch.setattr(scan, "_CHUNK", 1)
    monkeypatch.setattr(scan, "NUM_THREADS", 1)
    job = forked.Job(tmp_path / "log", *arguments)
    job.wait_for((tmp_path / "run" / ".lock").exists)
    job.send(number)
    code, output = job.finish()
    assert code == CODES[number]
    assert output.startswith("stopped before training went on; nothing is lost")
    assert output.count("\n") == 1


def test_continuing_is_no_reason_to_stop(tmp_path, arguments):
    job = forked.Job(tmp_path / "log", *arguments[:-1], "--epochs=3")
    job.wait_for((tmp_path / "run" / ".lock").exists)
    job.send(signal.SIGSTOP, signal.SIGCONT)
    code, output = job.finish()
    assert code == 0 and "stop" not in output


def test_a_stop_that_takes_too_long_is_forced(tmp_path, arguments):
    both = forked.start_together(
        2, tmp_path / "log", *arguments, "--stop_seconds=1"
    )
    both[0].wait_for(checkpoint(tmp_path).exists)
    both[1].send(signal.SIGSTOP)  # Process 0 waits for it in C++.
    both[0].send(signal.SIGTERM)
    code, output = both[0].finish()
    both[1].process.kill()
    assert code == 143
    assert "not stopped after 1 seconds: ended without saving" in output
    torch.load(checkpoint(tmp_path), weights_only=True)


def test_nohup_is_respected(tmp_path, arguments):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = jobs.start("train.main", *arguments)
    finally:
        signal.signal(signal.SIGHUP, previous)
    while not checkpoint(tmp_path).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert jobs.finish(process)[0] == 143


def start_on_terminal(*arguments):
    """Starts a job on a terminal of its own; the terminal's other end."""
    person, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "train.main", *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    os.set_blocking(person, False)
    return process, person


def drain(person):
    """What has been written to the terminal."""
    try:
        return os.read(person, 1 << 20).decode()
    except OSError:
        return ""


def test_a_person_may_be_impatient(tmp_path, arguments):
    stuck = ["--gin_param=create_model.name = @stuck_after_signal"]
    (tmp_path / "own.py").write_text(STUCK)
    own = tmp_path / "own.gin"
    own.write_text("import own\n")
    os.environ["BUILD_WORKING_DIRECTORY"] = str(tmp_path)
    process, person = start_on_terminal(*arguments, f"--gin_file={own}", *stuck)
    del os.environ["BUILD_WORKING_DIRECTORY"]
    text = ""
    while "steps" not in text:
        text += drain(person)
        assert process.poll() is None, text
        time.sleep(0.05)
    for pause in (0.05, 1.5, 0.0):
        # The first two are one press, as a launcher hands it on.
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
        if pause:
            assert process.poll() is None
    assert process.wait(60) == 130
    assert "interrupted again: ended without saving" in drain(person)


STUCK = """
import os
import time

import gin
import san

steps = []


@gin.configurable
def stuck_after_signal(num_classes):
    model = san.SAN(num_classes=num_classes)

    def stick(module, inputs, output):
        if module.training:
            os.write(2, b"steps")
            time.sleep(600)

    model.register_forward_hook(stick)
    return model
"""


def test_two_processes_say_once_that_they_were_starting(tmp_path, arguments):
    process = jobs.start("train.main", *arguments, "--num_processes=2")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not len(children.read_text().split()) == 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGUSR1)
    code, _, stderr = jobs.finish(process)
    assert code == 75
    assert stderr.count("\n") <= 1 and "Traceback" not in stderr


@pytest.mark.parametrize("module", ["train.main", "eval.imagenet"])
@pytest.mark.parametrize("seconds", [0.3, 0.8])
def test_interrupted_while_starting(module, seconds):
    process = jobs.start(module, "--gin_file=san10_pair.gin")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    code, _, stderr = jobs.finish(process)
    assert code == 130
    assert stderr == "interrupted while starting\n"
