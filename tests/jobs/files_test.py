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


# What FUSE, gcsfuse and the gateways of object stores say.
@pytest.mark.parametrize(
    "number", [errno.EEXIST, errno.EPERM, errno.ENOTSUP, errno.EXDEV]
)
def test_a_file_system_where_nothing_is_replaced(tmp_path, monkeypatch, number):
    rename, path = os.replace, tmp_path / "file"

    def replace(old, new):
        if os.path.exists(new):
            raise OSError(number, os.strerror(number), str(old), None, str(new))
        rename(old, new)

    files.check_replacing(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "replace", replace)
    files.write_atomically(path, b"old")
    with pytest.raises(OSError) as error:
        files.write_atomically(path, b"new")
    assert str(error.value) == (
        f"write: {tmp_path} must be a folder in which a file can take another's"
        f" name, got {os.strerror(number)}; choose one on another file system;"
        " file is as it was"
    )
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match=rf"{tmp_path} must be a folder in which"):
        files.check_replacing(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_only_leftovers_are_removed(tmp_path):
    kept = [tmp_path / ".hidden", tmp_path / "file.tmp", tmp_path / "file"]
    for path in [*kept, tmp_path / ".file.12.tmp"]:
        path.write_bytes(b"")
    files.remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_was_left_under_a_temporary_name_is_not_written_into(tmp_path):
    """Where all processes have one number, as in containers."""
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"other")
    left = tmp_path / files.temporary_name("file")
    for write in (
        lambda: files.write_atomically(path, b"data"),
        lambda: files.link(tmp_path / "source", path),
    ):
        (tmp_path / "source").write_bytes(b"data")
        left.hardlink_to(other)
        write()
        assert other.read_bytes() == b"other"
        assert path.read_bytes() == b"data"
        assert not left.exists()


def test_a_second_name_of_the_same_file(tmp_path):
    path, name = tmp_path / "file", tmp_path / "name"
    path.write_bytes(b"data")
    for _ in range(2):
        files.link(path, name)
        assert path.samefile(name)
        assert sorted(tmp_path.iterdir()) == [path, name]


def test_a_copy_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    name = tmp_path / "name"
    name.write_bytes(b"old")
    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "file").write_bytes(b"new")
    with pytest.raises(OSError):
        files.link(tmp_path / "file", name)
    assert name.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
