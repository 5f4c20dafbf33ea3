import errno
import fcntl
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest
import torch

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
    folder.save(checkpoint(1), is_best=True)
    folder.save(checkpoint(2), is_best=False)
    assert folder.load()["number"] == 2
    assert torch.load(folder.best)["number"] == 1
    folder.forget()
    assert folder.load() is None
    assert not folder.best.exists()


def save_for_ever(folder):
    torch.set_num_threads(1)
    number = 0
    while True:
        number += 1
        folder.save(checkpoint(number), is_best=number % 2 == 0)


def test_killed_while_writing_a_checkpoint_is_whole(folder):
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    folder.save(checkpoint(0), is_best=True)
    for _ in range(25):
        writer = context.Process(target=save_for_ever, args=(folder,))
        writer.start()
        time.sleep(rng.uniform(0.02, 0.15))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        last = folder.load()
        assert (last["weights"] == last["number"]).all()
        best = torch.load(folder.best)
        assert (best["weights"] == best["number"]).all()


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


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_an_unreadable_checkpoint_says_what_to_do(folder, damage):
    folder.save(checkpoint(1), is_best=False)
    whole = folder.last.read_bytes()
    folder.last.write_bytes(whole[:-50] if damage is None else damage)
    with pytest.raises(ValueError, match=r"last\.pth.*--resume=false"):
        folder.load()


def test_a_failing_write_keeps_the_old_checkpoint(folder):
    folder.save(checkpoint(1), is_best=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"^write: .*last\.pth must be .*large"
        ):
            folder.save(checkpoint(2), is_best=False)
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
