"""Training under a real SLURM, from start to every end that it gives a job.

Not among the tests that run by default: see CONTRIBUTING.md.
"""

import os
import pathlib
import shlex
import signal
import sys
import time

import pytest
import torch

from tests.slurm import cluster
from tests.train import jobs

SCRIPT = pathlib.Path("tools/slurm/train.sbatch").absolute()

# In place of eight GPUs.
SMALL = ["--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0"]


@pytest.fixture(scope="module", autouse=True)
def slurm():
    with cluster.cluster() as folder:
        yield folder


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Submits a job that trains for ever; its number."""
    images = jobs.write_images(tmp_path / "images")
    settings = jobs.write_settings(tmp_path)
    command = [sys.executable, "-m", "train.main"]
    monkeypatch.setenv("SAN_TRAIN", shlex.join(command))
    submitted = []

    def submit(*options, epochs=100000, script=SCRIPT):
        job = cluster.submit(
            *SMALL,
            f"--output={tmp_path / 'log'}",
            f"--chdir={os.getcwd()}",
            *options,
            script,
            f"--gin_file={settings}",
            f"--data_dir={images}",
            f"--workdir={tmp_path / 'run'}",
            f"--epochs={epochs}",
        )
        submitted.append(job)
        return job

    yield submit
    for job in submitted:
        cluster.cancel(job)
    for job in submitted:
        cluster.wait_for(job, is_over)


def is_over(facts):
    return facts.get("JobState") in (
        None,
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
    )


def is_requeued(facts):
    return facts["JobState"] == "PENDING" and facts["Restarts"] == "1"


def log(tmp_path):
    path = tmp_path / "log"
    return path.read_text() if path.exists() else ""


def wait_for_checkpoint(tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    wait_until(last.exists, tmp_path)
    return last


def wait_until(condition, tmp_path):
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, log(tmp_path)
        time.sleep(0.1)


def tasks(tmp_path):
    """The training processes on this machine, by their rank."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--workdir={tmp_path / 'run'}".encode() in command:
            for entry in environment:
                name, _, value = entry.partition(b"=")
                if name == b"SLURM_PROCID" and b"train.main" in command[:4]:
                    found[int(value)] = int(path.name)
    return found


def test_tasks_are_joined(tmp_path, training):
    job = training(epochs=1)
    found = cluster.wait_for(job, is_over)
    assert found["JobState"] == "COMPLETED", log(tmp_path)
    assert log(tmp_path).count("best checkpoint") == 1
    assert "training ended with exit code 0" in log(tmp_path)


def test_the_batch_script_itself_is_no_task(tmp_path, training):
    script = tmp_path / "without_srun.sbatch"
    script.write_text('#!/bin/bash\n$SAN_TRAIN "$@"\n')
    found = cluster.wait_for(training(script=script), is_over)
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0")
    assert "start with srun" in log(tmp_path)


def test_before_its_time_is_over_it_saves_and_starts_again(tmp_path, training):
    job = training("--time=60", "--signal=USR1@100")
    last = wait_for_checkpoint(tmp_path)
    cluster.let_time_run_out(job)
    cluster.wait_for(job, is_requeued)
    assert "training ended with exit code 75" in log(tmp_path)
    saved = last.stat().st_mtime_ns
    cluster.start_now(job)
    wait_until(lambda: "going on after" in log(tmp_path), tmp_path)
    wait_until(lambda: last.stat().st_mtime_ns > saved, tmp_path)


def test_preempted_without_a_warning_it_is_requeued(tmp_path, training):
    job = training("--partition=low")
    wait_for_checkpoint(tmp_path)
    other = cluster.submit(
        "--partition=high",
        "--ntasks=2",
        f"--output={tmp_path / 'other'}",
        "--wrap=true",
    )
    cluster.wait_for(job, is_requeued)
    cluster.wait_for(other, is_over)
    assert "training ended with exit code 143" in log(tmp_path)
    assert log(tmp_path).count("stopped in ") == 1
    cluster.start_now(job)
    wait_until(lambda: "going on after" in log(tmp_path), tmp_path)


def test_a_cancelled_job_has_saved_and_stays_away(tmp_path, training):
    job = training()
    last = wait_for_checkpoint(tmp_path)
    cluster.cancel(job)
    found = cluster.wait_for(job, is_over)
    assert (found["JobState"], found["Restarts"]) == ("CANCELLED", "0")
    assert "stopped in " in log(tmp_path)
    torch.load(last, weights_only=True)


def test_a_dead_task_ends_the_job_and_is_named(tmp_path, training):
    job = training()
    wait_for_checkpoint(tmp_path)
    os.kill(tasks(tmp_path)[1], signal.SIGKILL)
    found = cluster.wait_for(job, is_over)
    assert (found["JobState"], found["Restarts"]) == ("FAILED", "0")
    assert log(tmp_path).count("error: process 1 is gone") == 1
    assert "Traceback" not in log(tmp_path)
