import errno
import io
import os
import pathlib
import random
import zipfile

import pytest
import torch

from san import checkpoints, digest

WEIGHTS = torch.linspace(1, 2, 4999)


@pytest.fixture
def path(tmp_path):
    """A signed file."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weights": WEIGHTS}, "epoch": 7}, buffer)
    digest.sign(buffer)
    (tmp_path / "model.pth").write_bytes(buffer.getbuffer())
    return tmp_path / "model.pth"


def test_every_reader_passes_over_it(path):
    for mmap in (False, True):
        found = torch.load(path, weights_only=True, mmap=mmap)
        assert torch.equal(found["state_dict"]["weights"], WEIGHTS)
    found = checkpoints.read_checkpoint(path)
    assert torch.equal(found["state_dict"]["weights"], WEIGHTS)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"san-sha256:")


def flip(path, place, bit=0):
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_of_a_weight_is_refused(path):
    flip(path, path.read_bytes().index(WEIGHTS[99:].numpy().tobytes()) + 3, 5)
    # As it was: other weights, without a word.
    found = torch.load(path, weights_only=True)["state_dict"]["weights"]
    assert (found != WEIGHTS).sum() == 1
    with pytest.raises(ValueError, match=r"saved, got .*model\.pth, which is"):
        checkpoints.read_checkpoint(path)
    with pytest.raises(ValueError, match="SHA-256"):
        checkpoints.read_state_dict(path)
    still = checkpoints.read_checkpoint(path, verify=False)
    assert (still["epoch"], len(still["state_dict"]["weights"])) == (7, 4999)


def test_wherever_a_bit_flips_it_is_refused(path):
    content, rng = path.read_bytes(), random.Random(0)
    end = range(len(content) - 97, len(content))
    for place in [*end, *rng.choices(range(len(content) - 97), k=100)]:
        flip(path, place, rng.randrange(8))
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.read_checkpoint(path)
        path.write_bytes(content)


@pytest.mark.parametrize("hole", [1, 50, 75, 97, 512, 4096])
def test_zeros_and_cuts(path, hole):
    content = path.read_bytes()
    for damaged in (
        content[:-hole],
        content[:-hole] + bytes(hole),
        content[:8192] + bytes(hole) + content[8192 + hole :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged"):
            checkpoints.read_checkpoint(path)


def test_a_digest_is_of_one_file_only(path):
    """Not of one with the same comment: saved, changed and saved again."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/more", b"more")
    with pytest.raises(ValueError, match="SHA-256"):
        checkpoints.read_checkpoint(path)


def test_other_comments_are_no_digest(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"of somebody else"
    assert checkpoints.read_checkpoint(path)["epoch"] == 7


def test_what_is_no_archive_cannot_be_signed():
    with pytest.raises(AssertionError, match="no archive"):
        digest.sign(io.BytesIO(b"x" * 100))


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, ValueError), (errno.EACCES, OSError)]
)
def test_a_disk_that_fails_and_a_file_that_is_not_ours(
    path, monkeypatch, number, kind
):
    def fail(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(kind):
        checkpoints.read_checkpoint(path)
