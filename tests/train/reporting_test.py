import os
import pathlib
import pty
import subprocess
import sys
import termios

import pytest
import torch

import san
from tests.train import jobs
from train import messages
from train.checkpointing import State, Validation
from train.work_folder import WorkFolder


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3600, "1:00:00"),
        (90061, "25:01:01"),
    ],
)
def test_durations(seconds, text):
    assert messages.duration(seconds) == text


def test_names_the_blocks_that_are_not_fused(capsys):
    model = san.SAN(san.PatchwiseAttention, (2, 1), (129, 3), (32, 32), 4)
    messages.print_network(model, torch.device("cpu"))
    why = "the fused operator has no room for footprints above 127"
    assert (
        f"attention backend 'fastest'; not fused: layer0.0.sam: {why}; "
        f"layer0.1.sam: {why}\n" in capsys.readouterr().err
    )
    for block in (*model.layer0, *model.layer1):
        block.relu = torch.nn.GELU()
    messages.print_network(model, torch.device("cpu"))
    said = capsys.readouterr().err
    assert "layer0.0: relu is a GELU, not a ReLU; " in said
    assert said.endswith("; and 2 more\n")
    san.set_attention_backend("reference")
    try:
        messages.print_network(model, torch.device("cpu"))
    finally:
        san.set_attention_backend()
    assert "backend 'reference'\n" in capsys.readouterr().err


def test_says_that_torch_leaves_a_gpu_idle(tmp_path, monkeypatch, capsys):
    model = torch.nn.Linear(1, 1)
    cpu = torch.device("cpu")
    monkeypatch.setattr(messages, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", None)
    messages.print_network(model, cpu)
    assert "driver" not in capsys.readouterr().err
    (tmp_path / "version").touch()
    messages.print_network(model, cpu)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "built for CPUs, for a reason" in said
    assert "bazel run --config=cuda" in said
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    messages.print_network(model, cpu)
    assert "driver" not in capsys.readouterr().err


def test_results_by_hand():
    folder = WorkFolder(pathlib.Path("/home/me/run"))
    state = State(
        epoch=9,
        seconds=83.0,
        best=Validation(7, 98.61, 100.0, 0.1234, 360),
        latest=Validation(9, 98.0, 99.5, 0.2, 360),
    )
    assert messages.results(folder, state).splitlines() == [
        "results of /home/me/run",
        "        epoch     top-1     top-5     loss   images",
        "  best      7    98.61%   100.00%   0.1234      360",
        "  last      9    98.00%    99.50%   0.2000      360",
        "training took 1:23",
        "best checkpoint: /home/me/run/checkpoints/best.pth",
        "evaluate it by: bazel run //eval:imagenet -- --workdir=/home/me/run",
    ]


def test_the_better_validation():
    def validation(top1, loss):
        return Validation(1, top1, 0.0, loss, 1)

    assert validation(50.0, 1.0).beats(None)
    assert validation(51.0, 2.0).beats(validation(50.0, 1.0))
    assert validation(50.0, 0.9).beats(validation(50.0, 1.0))
    assert not validation(50.0, 1.0).beats(validation(50.0, 1.0))
    assert not validation(49.0, 0.1).beats(validation(50.0, 1.0))


def test_a_terminal_gets_a_bar(tmp_path):
    images = jobs.write_images(tmp_path / "images")
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 80))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "train.main",
            f"--gin_file={jobs.write_settings(tmp_path)}",
            f"--data_dir={images}",
            f"--workdir={tmp_path / 'run'}",
            "--gin_param=Recipe.log_every_steps=1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break
    assert process.wait() == 0, shown.decode()
    os.close(master)
    bars = [text for text in shown.decode().split("\r") if "100%" in text]
    for part in ("epoch 2/2", "00:00 left", "loss", "top-1", "images/s"):
        assert part in bars[-1]
