"""What training goes on from when files are damaged or images are gone."""

import shutil

import pytest
import torch

from tests.train import jobs
from train import resuming
from train.place import Place
from train.work_folder import WorkFolder


@pytest.mark.parametrize(
    ("earlier", "later", "words"),
    [
        ((4, 20), (4, 37), "17 steps"),
        ((4, 36), (4, 37), "1 step"),
        ((4, 0), (5, 0), "1 epoch and 0 steps"),
        ((4, 40), (5, 3), "7 steps"),
        ((2, 40), (5, 3), "2 epochs and 7 steps"),
    ],
)
def test_what_lies_between_two_places(earlier, later, words):
    assert Place(*later, 44).since(Place(*earlier, 44)) == words
    assert Place(*later, 44) > Place(*earlier, 43)


@pytest.fixture
def folder(tmp_path):
    """The end of epoch 4, 20 steps of epoch 5, 37 of them; best is epoch 2."""
    work_folder = WorkFolder(tmp_path / "run")
    with work_folder.owned():
        work_folder.save(checkpoint(2, 0), keep=2, is_best=True)
        work_folder.save(checkpoint(4, 0), keep=2, ends_epoch=True)
        work_folder.save(checkpoint(4, 20), keep=2)
        work_folder.save(checkpoint(4, 37), keep=2)
        yield work_folder


def checkpoint(epoch, step):
    return {
        "weights": torch.linspace(1, 2, 999),
        "num_images": 1437,
        "recipe": {"batch_size": 32},
        "state": {"epoch": epoch, "step": step},
    }


def flip_a_bit(path):
    """In the middle of the weights."""
    content = bytearray(path.read_bytes())
    weights = torch.linspace(1, 2, 999).numpy().tobytes()
    content[content.index(weights) + len(weights) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


def places(folder):
    return [
        (path.stem, str(Place.of(torch.load(path))))
        for path in [folder.last, *folder.others()]
    ]


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (flip_a_bit, "17 steps"),
        (cut, "what came later, which cannot be read"),
        (empty, "what came later, which cannot be read"),
    ],
)
def test_a_damaged_last_one_is_kept_aside(folder, capsys, damage, lost):
    damage(folder.last)
    damaged = folder.last.read_bytes()
    resuming._last_whole(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: read_checkpoint: file must ")
    assert f"got {folder.last}, which is damaged" in line
    assert line.endswith(
        "; kept as last.damaged.pth; training goes on from last-1.pth, after"
        f" 4 epochs and 20 steps; to train again: {lost}"
    )
    kept = folder.last.with_name("last.damaged.pth")
    assert kept.read_bytes() == damaged
    assert places(folder) == [
        ("last", "4 epochs and 20 steps"),
        ("last-1", "4 epochs and 20 steps"),
        ("epoch", "4 epochs and 0 steps"),
        ("best", "2 epochs and 0 steps"),
    ]
    resuming._last_whole(folder)
    assert capsys.readouterr().err == ""


def test_the_newest_whole_one_is_taken_and_each_damaged_one_named(
    folder, capsys
):
    flip_a_bit(folder.last)
    cut(folder.last.with_name("last-1.pth"))
    resuming._last_whole(folder)
    first, second = capsys.readouterr().err.splitlines()
    assert "last-1.pth, which is damaged" in first
    assert second.endswith(
        "from epoch.pth, after 4 epochs and 0 steps; to train again: 37 steps"
    )
    flip_a_bit(folder.last)
    flip_a_bit(folder.epoch)
    resuming._last_whole(folder)
    assert "kept as last.damaged-2.pth; training goes on from best.pth" in (
        capsys.readouterr().err
    )


def test_a_missing_last_one(folder, capsys):
    """As left by a kill while a damaged one was replaced."""
    folder.last.unlink()
    resuming._last_whole(folder)
    line = capsys.readouterr().err
    assert "last.pth is missing; training goes on from last-1.pth" in line


def test_without_a_whole_one_it_says_what_to_do(folder, capsys):
    before = sorted(folder.last.parent.iterdir())
    torch.save({"state_dict": {}}, folder.best)
    for path in (folder.last, *folder.others()[:-1]):
        empty(path)
    with pytest.raises(ValueError, match=r"last\.pth, .*--resume=false$"):
        resuming._last_whole(folder)
    said = capsys.readouterr().err
    assert said.count("which is damaged") == 2
    assert "one of //train:main, got one that holds state_dict" in said
    assert sorted(folder.last.parent.iterdir()) == before


def test_nothing_is_no_fault(tmp_path, capsys):
    folder = WorkFolder(tmp_path)
    with folder.owned():
        resuming._last_whole(folder)
    assert capsys.readouterr().err == ""
    assert folder.load() is None


# ------------------------------------------------------------ real trainings

SETTINGS = ("Recipe.epochs = 3", "Recipe.save_every_steps = 1")


@pytest.fixture
def images(tmp_path):
    """27 images: 4 steps an epoch."""
    return jobs.write_images(tmp_path / "images")


def train(folder, images, *params, fails_in=None):
    """Trains, until a step of this run fails."""
    jobs.configure(folder.parent, *SETTINGS, *params)
    if fails_in is None:
        return jobs.train(folder, images)
    failure = pytest.raises(RuntimeError, match="failed as asked")
    with jobs.interruption(fails_in, []), failure:
        jobs.train(folder, images)
    return WorkFolder(folder)


def assert_same_weights(one, other):
    jobs.assert_same_bits(jobs.weights(one), jobs.weights(other))


def test_a_run_with_a_damaged_checkpoint_ends_the_same(
    tmp_path, images, capsys
):
    whole = train(tmp_path / "whole", images)
    damaged = train(tmp_path / "run", images, fails_in=7)
    cut(damaged.last)
    train(damaged.path, images)
    assert "going on after 1 epochs and 1 steps" in capsys.readouterr().err
    assert_same_weights(whole, damaged)


CHANGED = (
    "warning: the list of training images changed within epoch {} ({} then, {}"
    " now): epoch {} is trained again from its first step, replaying {}"
)


def remove(images, excluded, *names):
    """Removes images for good, or says how to leave them out."""
    if excluded:
        excluded.write_text("".join(f"train/{name}\n" for name in names))
        return [f"Data.exclude = {str(excluded)!r}"]
    for name in names:
        (images / "train" / name).unlink(missing_ok=True)
    return []


@pytest.mark.parametrize("is_excluded", [False, True])
def test_images_removed_within_an_epoch(tmp_path, images, capsys, is_excluded):
    """The bits of a run in which they were removed before it, twice."""
    original = shutil.copytree(images, tmp_path / "original")
    excluded = tmp_path / "excluded.txt" if is_excluded else None
    run = train(tmp_path / "run", images, fails_in=7)
    capsys.readouterr()
    settings = remove(images, excluded, "b/3.jpg")
    train(run.path, images, *settings, fails_in=3)
    said = capsys.readouterr().err
    assert CHANGED.format(2, 27, 26, 2, "2 steps") in said
    assert f"going on after 1 epochs and 0 steps, from {run.epoch}" in said

    settings = remove(images, excluded, "b/3.jpg", "c/8.jpg", "c/0.jpg")
    train(run.path, images, *settings)
    said = capsys.readouterr().err
    assert CHANGED.format(2, 26, 24, 2, "2 steps") in said

    every = "Recipe.save_every_steps = 0"
    expected = train(tmp_path / "expected", original, every, fails_in=5)
    settings = remove(original, excluded, "b/3.jpg", "c/8.jpg", "c/0.jpg")
    capsys.readouterr()
    train(expected.path, original, every, *settings)
    assert "trained again" not in capsys.readouterr().err
    assert_same_weights(expected, run)


def test_others_of_the_same_number_in_the_first_epoch(tmp_path, images, capsys):
    run = train(tmp_path / "run", images, fails_in=4)
    (images / "train" / "a" / "0.jpg").rename(images / "train" / "a" / "z.jpg")
    train(run.path, images)
    said = capsys.readouterr().err
    assert CHANGED.format(1, 27, "27 others", 1, "3 steps") in said
    assert "going on after" not in said
    assert_same_weights(train(tmp_path / "expected", images), run)


def test_another_network_is_refused_in_the_first_epoch_too(tmp_path, images):
    run = train(tmp_path / "run", images, fails_in=4)
    remove(images, None, "b/3.jpg")
    with pytest.raises(ValueError, match=r"SAN\.kernel_sizes must be the"):
        train(run.path, images, "SAN.kernel_sizes = (3, 5)")


def test_without_the_start_of_the_epoch_an_older_one_is_taken(
    tmp_path, images, capsys
):
    run = train(tmp_path / "run", images, fails_in=11)
    remove(images, None, "b/3.jpg")
    older = train(tmp_path / "older", images, fails_in=6)
    shutil.copy(older.epoch, run.best)
    cut(run.epoch)
    capsys.readouterr()
    train(run.path, images, fails_in=1)
    said = capsys.readouterr().err
    assert "epoch.pth, which is damaged" in said
    assert CHANGED.format(3, 27, 26, 2, "1 epoch and 2 steps") in said
    cut(run.best)
    with pytest.raises(ValueError, match=r"epoch\.pth is no whole .*=false$"):
        train(run.path, images)


def test_another_batch_size_is_refused_until_it_is_meant(tmp_path, images):
    run = train(tmp_path / "run", images, fails_in=6)
    with pytest.raises(
        ValueError,
        match=r"batch_size must be the checkpoint's, 6, got 5; .*; to train"
        r" epoch 2 again, copy epoch\.pth over last\.pth$",
    ):
        train(run.path, images, "Recipe.batch_size = 5")
    shutil.copy(run.epoch, run.last)
    train(run.path, images, "Recipe.batch_size = 5")
    assert torch.load(run.last, weights_only=True)["epoch"] == 3
