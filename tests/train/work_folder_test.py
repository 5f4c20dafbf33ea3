import errno
import fcntl
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time

import pytest
import torch

from san import checkpoints
from train.work_folder import WorkFolder


@pytest.fixture
def folder(tmp_path):
    work_folder = WorkFolder(tmp_path / "run")
    with work_folder.owned():
        yield work_folder


def checkpoint(number):
    """Its tensor is large enough for a write to be interrupted."""
    return {"number": number, "weights": torch.full((200_000,), float(number))}


def test_what_is_saved_is_loaded(folder):
    assert folder.load() is None
    folder.save(checkpoint(1), keep=2, is_best=True)
    folder.save(checkpoint(2), keep=2)
    assert folder.load()["number"] == 2
    assert torch.load(folder.best)["number"] == 1


def kept(folder):
    """The checkpoints that are there: their numbers by name."""
    return {
        path.stem: torch.load(path)["number"]
        for path in folder.last.parent.iterdir()
    }


def test_the_latest_are_kept(folder):
    for number, keep, expected in (
        (1, 3, {"last": 1}),
        (2, 3, {"last": 2, "last-1": 1}),
        (3, 3, {"last": 3, "last-1": 2, "last-2": 1}),
        (4, 3, {"last": 4, "last-1": 3, "last-2": 2}),
        (5, 2, {"last": 5, "last-1": 4}),
        (6, 1, {"last": 6}),
        (7, 11, {"last": 7, "last-1": 6}),
    ):
        folder.save(checkpoint(number), keep=keep)
        assert kept(folder) == expected


def test_the_end_of_an_epoch_is_kept_without_costing_anything(folder):
    folder.save(checkpoint(1), keep=2, ends_epoch=True)
    assert folder.epoch.samefile(folder.last)
    for number in (2, 3, 4):
        folder.save(checkpoint(number), keep=2)
    folder.save(checkpoint(5), keep=2, is_best=True)
    assert kept(folder) == {"last": 5, "last-1": 4, "epoch": 1, "best": 5}
    assert not folder.best.samefile(folder.last)
    assert folder.others() == [
        folder.last.with_name(f"{name}.pth")
        for name in ("last-1", "epoch", "best")
    ]


def test_starting_again_forgets_them_all_and_nothing_else(folder):
    for number in range(12):
        folder.save(checkpoint(number), keep=11, ends_epoch=True, is_best=True)
    for _ in range(2):
        folder.replace_last(folder.best)
    own = folder.last.with_name("last-mine.pth")
    own.touch()
    assert len(list(own.parent.iterdir())) == 16
    folder.forget()
    assert list(own.parent.iterdir()) == [own]
    assert folder.load() is None


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_they_are_copied(folder, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(number))
    for number in (1, 2):
        folder.save(checkpoint(number), keep=2, ends_epoch=True)
    assert kept(folder) == {"last": 2, "last-1": 1, "epoch": 2}
    assert not folder.epoch.samefile(folder.last)


def test_ended_between_two_renames_the_next_goes_on(folder, monkeypatch):
    """As after a kill, last.pth and the one before are one file."""
    for number in (1, 2, 3):
        folder.save(checkpoint(number), keep=3)
    replace = os.replace

    def fail_for_last(source, target):
        if target == folder.last:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_last)
    with pytest.raises(OSError, match=r"last\.pth must be writable"):
        folder.save(checkpoint(4), keep=3)
    assert kept(folder) == {"last": 3, "last-1": 3, "last-2": 2}
    monkeypatch.undo()
    folder.save(checkpoint(5), keep=3)
    assert kept(folder) == {"last": 5, "last-1": 3, "last-2": 3}


def test_what_takes_the_place_of_a_damaged_one_stays(folder):
    folder.save(checkpoint(1), keep=2, is_best=True)
    for name in ("last.damaged.pth", "last.damaged-2.pth"):
        folder.last.write_bytes(b"damaged")
        assert folder.replace_last(folder.best) == folder.last.with_name(name)
    folder.last.unlink()
    assert folder.replace_last(folder.best) is None
    shutil.copy(folder.path / ".lock", folder.last)
    assert torch.load(folder.best)["number"] == 1


def save_for_ever(folder):
    torch.set_num_threads(1)
    number = 0
    while True:
        number += 1
        folder.save(checkpoint(number), keep=3, is_best=number % 2 == 0)


def test_killed_while_writing_a_checkpoint_is_whole(folder):
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    folder.save(checkpoint(0), keep=2, is_best=True)
    for _ in range(25):
        writer = context.Process(target=save_for_ever, args=(folder,))
        writer.start()
        time.sleep(rng.uniform(0.02, 0.15))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        for path in [folder.last, *folder.others()]:
            found = checkpoints.read_checkpoint(path)
            assert (found["weights"] == found["number"]).all()
        assert not folder.last.with_name("last-3.pth").exists()


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    folder = WorkFolder(tmp_path)
    with folder.owned():
        pass
    leftovers = [
        tmp_path / ".config.gin.123.tmp",
        folder.last.parent / ".last.pth.123.tmp",
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    leftovers.append(tmp_path / ".digits_abc.tmp")
    (leftovers[-1] / "train").mkdir(parents=True)
    with folder.owned():
        assert not any(leftover.exists() for leftover in leftovers)


def test_two_runs_cannot_own_a_folder(folder):
    with (
        pytest.raises(ValueError, match=rf"in use .*process {os.getpid()} "),
        WorkFolder(folder.path).owned(),
    ):
        pass


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
)
def test_without_locks_it_goes_on_with_a_warning(
    tmp_path, monkeypatch, capsys, number
):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with WorkFolder(tmp_path).owned():
        pass
    warning = f"has no locks ({os.strerror(number)}); see to it that no other"
    assert warning in capsys.readouterr().err


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError), WorkFolder(tmp_path).owned():
        pass


def failing(number):
    """A call that ends in an error."""

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    return fail


def own_until_killed(path, owned):
    with WorkFolder(path).owned():
        owned.set()
        time.sleep(600)


def test_the_lock_of_a_killed_run_is_gone(tmp_path):
    context = multiprocessing.get_context("fork")
    owned = context.Event()
    owner = context.Process(target=own_until_killed, args=(tmp_path, owned))
    owner.start()
    assert owned.wait(60)
    with (
        pytest.raises(ValueError, match="in use"),
        WorkFolder(tmp_path).owned(),
    ):
        pass
    owner.kill()
    owner.join()
    with WorkFolder(tmp_path).owned():
        pass


def test_a_failing_write_keeps_the_old_checkpoint(folder):
    folder.save(checkpoint(1), keep=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"^write: .*last\.pth must be .*large"
        ):
            folder.save(checkpoint(2), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.load()["number"] == 1
    assert [path.name for path in folder.last.parent.iterdir()] == ["last.pth"]


def test_a_work_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(OSError, match="file"), WorkFolder(path).owned():
        pass


def test_a_work_folder_must_be_a_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    rule = "train: --workdir must be a folder that can be written to, got "
    with pytest.raises(OSError, match=rule), WorkFolder(file).owned():
        pass
