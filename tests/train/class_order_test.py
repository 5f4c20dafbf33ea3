"""Runs that began when folders named by number were sorted as text."""

import os
from unittest import mock

import pytest
import torch

from san.data import listing
from tests.train import jobs
from train.interruption import InterruptionError

NUMBERS = [str(number) for number in range(12)]
LINE = (
    "class folders are taken in the order of the checkpoint's classes, 0, 1, 10"
    " ... 9, not in that of the folder, 0, 1, 2 ... 11\n"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders 0 to 11, of rising brightness; 36 images are 6 steps."""
    root = jobs.write_images(
        tmp_path_factory.mktemp("images"), num_classes=12, num_train=3
    )
    for split in ("train", "val"):
        for name, letter in zip(NUMBERS, "abcdefghijkl", strict=True):
            os.rename(root / split / letter, root / split / name)
    return root


def train(folder, images, resume=True):
    jobs.configure(folder.parent, "Recipe.mixup_alpha = 0.5")
    return jobs.train(folder, images, resume)


def train_then(folder, images):
    """Trains with the folders sorted as they were then."""
    with mock.patch.object(listing, "in_order", sorted):
        return train(folder, images)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """An uninterrupted run of that time."""
    return train_then(tmp_path_factory.mktemp("whole") / "run", images)


@pytest.mark.parametrize("step", [2, 6])
def test_they_go_on_to_the_same_bits(tmp_path, images, whole, capfd, step):
    with jobs.interruption(step), pytest.raises(InterruptionError):
        train_then(tmp_path / "run", images)
    assert "class folders" not in capfd.readouterr().err
    resumed = train(tmp_path / "run", images)
    said = capfd.readouterr().err
    assert said.count(LINE) == said.count("class folders") == 1
    assert "digest" not in said
    jobs.assert_same_bits(jobs.weights(resumed), jobs.weights(whole))
    last = torch.load(resumed.last, weights_only=True)
    assert last["classes"] == sorted(NUMBERS)
    expected = torch.load(whole.last, weights_only=True)["state"]["latest"]
    assert last["state"]["latest"] == expected
    found = jobs.evaluate(resumed.last)
    assert found.result.top1 == expected["top1"]


def test_a_new_run_takes_them_by_number(tmp_path, images, whole, capfd):
    with jobs.interruption(2), pytest.raises(InterruptionError):
        train_then(tmp_path / "run", images)
    again = train(tmp_path / "run", images, resume=False)
    assert "class folders" not in capfd.readouterr().err
    assert torch.load(again.last, weights_only=True)["classes"] == NUMBERS
    with pytest.raises(AssertionError):
        jobs.assert_same_bits(jobs.weights(again), jobs.weights(whole))


def test_another_order_is_refused(tmp_path, images, whole):
    content = torch.load(whole.last, weights_only=True)
    last = jobs.WorkFolder(tmp_path / "run").last
    last.parent.mkdir(parents=True)
    torch.save(content | {"classes": NUMBERS[::-1]}, last)
    with pytest.raises(ValueError, match=r"class names .* must .* 11, got 0"):
        train(tmp_path / "run", images)


def test_what_cannot_be_read_is_said_as_ever(tmp_path, images):
    last = jobs.WorkFolder(tmp_path / "run").last
    last.parent.mkdir(parents=True)
    last.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"whole checkpoint .*--resume=false"):
        train(tmp_path / "run", images)
