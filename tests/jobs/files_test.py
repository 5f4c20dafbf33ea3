import errno
import os

import pytest

from san.jobs import files


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    for data in (b"one", b"", b"three"):
        files.write_atomically(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(OSError, match=rf"^write: {path} must be writable"):
        files.write_atomically(path, b"data")


def test_a_file_system_that_cannot_flush(tmp_path, monkeypatch):
    def fail(number):
        def fsync(descriptor):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    fail(errno.EINVAL)
    files.write_atomically(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    fail(errno.EIO)
    with pytest.raises(OSError, match="must be writable"):
        files.write_atomically(tmp_path / "file", b"other")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_only_leftovers_are_removed(tmp_path):
    kept = [tmp_path / ".hidden", tmp_path / "file.tmp", tmp_path / "file"]
    for path in [*kept, tmp_path / ".file.12.tmp"]:
        path.write_bytes(b"")
    files.remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
