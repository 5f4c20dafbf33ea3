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


def test_only_leftovers_are_removed(tmp_path):
    kept = [tmp_path / ".hidden", tmp_path / "file.tmp", tmp_path / "file"]
    for path in [*kept, tmp_path / ".file.12.tmp"]:
        path.write_bytes(b"")
    files.remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
