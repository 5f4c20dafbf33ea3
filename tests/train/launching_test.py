"""Several processes: how they start, and what becomes of the others."""

import datetime
import os
import pathlib
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist

from san.data import scan
from tests.train import forked, jobs

GONE = "error: process {} is gone without a word"
AGAIN = "the same command goes on from the last checkpoint"


@pytest.fixture
def images(tmp_path):
    return jobs.write_images(tmp_path / "images")


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


def children(process):
    """The processes that a process has started."""
    pid = process.pid
    return [
        int(child)
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        .read_text()
        .split()
    ]


def wait_for_checkpoint(tmp_path, process):
    end = time.monotonic() + forked.PATIENCE
    while not checkpoint(tmp_path).exists():
        assert process.poll() is None, jobs.finish(process)
        assert time.monotonic() < end
        time.sleep(0.01)


def test_num_processes_starts_them_and_gives_their_exit_code(
    tmp_path, arguments
):
    process = jobs.start("train.main", *arguments, "--num_processes=2")
    wait_for_checkpoint(tmp_path, process)
    assert len(children(process)) == 2
    # As a terminal or a scheduler does, and twice.
    for pid in (process.pid, *children(process), process.pid):
        os.kill(pid, signal.SIGUSR1)
    code, _, stderr = jobs.finish(process)
    assert code == 75
    assert stderr.splitlines()[-1].startswith("stopped in ")
    assert stderr.count("stopped in ") == 1
    code, stdout, stderr = jobs.run(
        "train.main", *arguments[:-1], "--epochs=1", "--num_processes=2"
    )
    assert code == 0, stderr
    assert stdout.count("best checkpoint") <= 1


def test_killed_launcher_and_killed_process(tmp_path, arguments):
    process = jobs.start("train.main", *arguments, "--num_processes=2")
    wait_for_checkpoint(tmp_path, process)
    os.kill(children(process)[1], signal.SIGKILL)
    code, _, stderr = jobs.finish(process)
    assert code == 137
    (line,) = [line for line in stderr.splitlines() if "error" in line]
    assert line.startswith(GONE.format(1)) and line.endswith(AGAIN)
    assert "Traceback" not in stderr

    process = jobs.start("train.main", *arguments, "--num_processes=2")
    end = time.monotonic() + forked.PATIENCE
    written = checkpoint(tmp_path).stat().st_mtime_ns
    while checkpoint(tmp_path).stat().st_mtime_ns == written:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    # Both end, or the pipe would stay open.
    _, stderr = process.communicate(timeout=forked.PATIENCE)
    assert stderr.splitlines()[-1].startswith("stopped in "), stderr


def test_under_torchrun(tmp_path, arguments):
    process = jobs.start(
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "-m",
        "train.main",
        *arguments,
    )
    wait_for_checkpoint(tmp_path, process)
    # It hands the signal on to its processes, which so get it twice.
    for pid in (process.pid, *children(process)):
        os.kill(pid, signal.SIGTERM)
    code, _, stderr = jobs.finish(process)
    assert code
    assert stderr.count("stopped in ") == 1
    torch.load(checkpoint(tmp_path), weights_only=True)


def test_torchrun_on_two_nodes(tmp_path, arguments):
    """As docs/train.md has it, with a command in place of a module."""
    command = tmp_path / "main"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m train.main "$@"\n')
    command.chmod(0o700)
    port = jobs.free_port()
    nodes = [
        jobs.start(
            "torch.distributed.run",
            "--nnodes=2",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}",
            "--local-addr=127.0.0.1",  # Whatever this machine is called.
            "--nproc-per-node=1",
            "--no-python",
            command,
            *arguments[:-1],
            "--epochs=1",
        )
        for _ in range(2)
    ]
    results = [jobs.finish(node) for node in nodes]
    assert [code for code, _, _ in results] == [0, 0], results
    tables = [stdout for _, stdout, _ in results if "best checkpoint" in stdout]
    assert len(tables) == 1


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_dies(tmp_path, arguments, killed):
    both = forked.start_together(2, tmp_path / "log", *arguments)
    both[0].wait_for(checkpoint(tmp_path).exists)
    start = time.monotonic()
    both[killed].send(signal.SIGKILL)
    code, output = both[1 - killed].finish()
    both[killed].finish()
    assert code == 1
    assert time.monotonic() - start < 30
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith(GONE.format(killed)) and last.endswith(AGAIN)


def test_a_file_goes(tmp_path, images, arguments):
    both = forked.start_together(2, tmp_path / "log", *arguments)
    both[0].wait_for(checkpoint(tmp_path).exists)
    gone = images / "train" / "a" / "3.jpg"
    gone.unlink()
    (first, output), (second, silent) = [job.finish() for job in both]
    assert (first, second) == (2, 2)
    assert output.splitlines()[-1].startswith(f"error: {gone} cannot be")
    assert (output + silent).count("error") == 1
    assert "Traceback" not in output + silent


def test_what_is_wrong_everywhere_is_said_once(tmp_path, arguments):
    both = forked.start_together(
        2, tmp_path / "log", *arguments, "--batch_size=1000"
    )
    (first, output), (second, silent) = [job.finish() for job in both]
    assert (first, second) == (2, 2)
    assert (output + silent).count("batch_size must be at most") == 1


def test_each_its_own_work_folder(tmp_path, arguments):
    both = forked.start_together(
        2,
        tmp_path / "log",
        *arguments,
        last=[f"--workdir={tmp_path / 'other'}"],
    )
    (first, output), (second, silent) = [job.finish() for job in both]
    assert (first, second) == (2, 2)
    assert "--workdir must be one folder that all processes see" in output
    assert "process 1 does not find" in output
    assert "error" not in silent
    assert not checkpoint(tmp_path).exists()


def test_a_scan_may_take_longer_than_the_group_waits(
    tmp_path, arguments, monkeypatch
):
    def slow(root, file):
        time.sleep(0.2)
        return 16, 18

    original = dist.init_process_group

    def impatient(*arguments, **settings):
        original(*arguments, timeout=datetime.timedelta(seconds=3), **settings)

    monkeypatch.setattr(scan, "measure", slow)
    monkeypatch.setattr(scan, "_CHUNK", 1)
    monkeypatch.setattr(scan, "NUM_THREADS", 1)
    monkeypatch.setattr(dist, "init_process_group", impatient)
    both = forked.start_together(
        2, tmp_path / "log", *arguments[:-1], "--epochs=1"
    )
    results = [job.finish() for job in both]
    assert [code for code, _ in results] == [0, 0], results


def test_parts_of_a_step_in_two_processes(tmp_path, arguments):
    """Odd numbers of images, an even one in each part but the last."""
    small = [
        *arguments[:2],
        "--epochs=1",
        "--batch_size=7",
        "--gin_param=create_model.name = @without_norms",
    ]
    one = forked.Job(tmp_path / "log", *small, f"--workdir={tmp_path / 'one'}")
    two = forked.start_together(
        2,
        tmp_path / "log",
        *small,
        f"--workdir={tmp_path / 'two'}",
        "--gin_param=Recipe.accumulation = 2",
    )
    for job in (one, *two):
        code, output = job.finish()
        assert code == 0, output
    torch.testing.assert_close(
        *(
            jobs.weights(jobs.WorkFolder(tmp_path / name))
            for name in ("one", "two")
        )
    )


def test_tasks_that_are_not_joined(tmp_path, arguments):
    job = forked.Job(
        tmp_path / "log", *arguments, SLURM_NTASKS="3", SLURM_PROCID="1"
    )
    code, output = job.finish()
    assert code == 2
    assert "start with srun" in output
    assert not checkpoint(tmp_path).exists()


@pytest.mark.parametrize(
    ("number", "environment", "rule"),
    [
        (0, {}, "must be at least 1 on this machine, got 0"),
        (3, {"WORLD_SIZE": "1"}, "must be left to what started the 1"),
    ],
)
def test_a_wrong_number(tmp_path, arguments, number, environment, rule):
    job = forked.Job(
        tmp_path / "log", *arguments, f"--num_processes={number}", **environment
    )
    code, output = job.finish()
    assert code == 2
    assert f"error: distributed: --num_processes {rule}" in output
