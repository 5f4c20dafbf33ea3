"""metrics.jsonl: what it says, and what becomes of it in every kind of end."""

import errno
import json
import math
import os
import resource
import time

import pytest
import torch

from tests.train import jobs
from train import metrics, sinks
from train.interruption import InterruptionError
from train.metrics import Metrics
from train.sinks import Point


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def train(folder, images, *params, resume=True):
    jobs.configure(folder.parent, "Recipe.log_every_steps = 2", *params)
    return jobs.train(folder, images, resume)


def places(path):
    """Where each line says that it is of."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["kind"], line["epoch"], line["step"]) for line in lines]


WHOLE = [
    *(("train", 1, 2), ("train", 1, 4), ("validation", 1, 4)),
    *(("train", 2, 2), ("train", 2, 4), ("validation", 2, 4)),
]


def test_every_figure_is_there(tmp_path, images):
    before = time.time()
    folder = train(tmp_path / "run", images)
    assert places(folder.metrics) == WHOLE
    lines = metrics.read(folder.metrics)
    assert [line["global_step"] for line in lines] == [2, 4, 4, 6, 8, 8]
    assert [line["images_seen"] for line in lines] == [12, 24, 24, 36, 48, 48]
    assert [line["epochs_trained"] for line in lines] == [
        *(0.5, 1.0, 1.0),
        *(1.5, 2.0, 2.0),
    ]
    seconds = [line["seconds"] for line in lines]
    assert 0 < seconds[0] and seconds == sorted(seconds)
    assert before < lines[0]["time"] < lines[-1]["time"] < time.time()
    for line in lines:
        assert 0 < line["loss"] and 0 <= line["top1"] <= 100
    assert lines[0]["images_per_second"] > 0
    validation = torch.load(folder.last)["state"]["latest"]
    for name, value in validation.items():
        assert lines[-1][name] == value


@pytest.mark.parametrize("step", range(1, 8))
def test_stopped_and_resumed_it_has_no_doubles(tmp_path, images, step):
    with jobs.interruption(step), pytest.raises(InterruptionError):
        train(tmp_path / "run", images)
    folder = train(tmp_path / "run", images)
    # A stop between two logs is one more log.
    assert [
        place for place in places(folder.metrics) if place[2] % 2 == 0
    ] == WHOLE


def test_a_failed_run_is_cut_back_to_its_checkpoint(tmp_path, images):
    # Fails after 7 steps; its checkpoint is from after 4.
    with jobs.interruption(7, []), pytest.raises(RuntimeError):
        train(tmp_path / "run", images)
    path = tmp_path / "run" / "metrics.jsonl"
    assert places(path) == WHOLE[:4]
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "epo')  # Killed at this moment.
    assert places(train(tmp_path / "run", images).metrics) == WHOLE


def test_another_batch_size_keeps_the_epochs_before(tmp_path, images):
    """Steps are counted anew; 3 epochs of 2 steps are fewer than 2 of 4."""
    train(tmp_path / "run", images)
    folder = train(
        tmp_path / "run", images, "Recipe.batch_size = 13", "Recipe.epochs = 3"
    )
    assert places(folder.metrics) == [
        *WHOLE,
        *(("train", 3, 2), ("validation", 3, 2)),
    ]


def test_starting_again_forgets_it(tmp_path, images):
    train(tmp_path / "run", images)
    folder = train(tmp_path / "run", images, "Recipe.epochs = 1", resume=False)
    assert places(folder.metrics) == WHOLE[:3]


def point(step, loss=1.0):
    place = {"epoch": 1, "step": step}
    return Point("train", step, place, {"loss": loss})


def test_what_is_not_finite_is_null(tmp_path):
    file = Metrics(tmp_path / "metrics.jsonl", 0, 0)
    file.open()
    file.draw(point(1, math.nan))
    # Flushed: who looks meanwhile sees it.
    assert metrics.read(file.path) == [
        {"kind": "train", "epoch": 1, "step": 1, "global_step": 1, "loss": None}
    ]
    file.close()


@pytest.mark.parametrize(
    "foreign",
    [b"[1]\n", b"\xff\xfe\n", b'{"kind": "train", "epoch": null}\n', b"{}\n"],
)
def test_lines_of_others_stay_and_are_not_read(tmp_path, foreign):
    path = tmp_path / "metrics.jsonl"
    good = b'{"kind": "train", "epoch": 1, "step": 1}\n'
    path.write_bytes(foreign + good + b'{"kind"')
    file = Metrics(path, 1, 0)
    file.open()
    file.close()
    assert path.read_bytes() == foreign + good
    assert metrics.read(path)[-1]["epoch"] == 1


def test_a_validation_that_comes_again_is_cut_off(tmp_path):
    """By a checkpoint from between an epoch and its validation."""
    path = tmp_path / "metrics.jsonl"
    trained = b'{"kind": "train", "epoch": 1, "step": 4}\n'
    path.write_bytes(trained + b'{"kind": "validation", "epoch": 1}\n')
    file = Metrics(path, 0, 4)
    file.open()
    file.close()
    assert path.read_bytes() == trained


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sinks, "_RETRY_SECONDS", 0.0)
    path = tmp_path / "metrics.jsonl"
    drawn = sinks.Sinks([Metrics(path, 0, 0)])
    drawn.draw(point(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (path.stat().st_size * 3 // 2, hard)
    )
    try:
        drawn.draw(point(2))
        assert not path.read_bytes().endswith(b"\n")  # Half a line.
        drawn.draw(point(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    drawn.draw(point(4))
    drawn.close()
    assert places(path) == [("train", 1, 1), ("train", 1, 4)]
    said = capsys.readouterr().err
    assert said.count("warning: no metrics are written to") == 1
    assert os.strerror(errno.EFBIG) in said
