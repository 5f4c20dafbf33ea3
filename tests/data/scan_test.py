import os
import stat

import numpy as np
import pytest

from san.data import DataError, load_split, scan
from san.data.listing import File
from tests.data import odd_files
from tests.data.sample_images import picture, write_images


@pytest.fixture
def folder(tmp_path):
    write_images(
        tmp_path / "images",
        {
            "train/cat": [(20, 30), (21, 31)],
            "train/dog": [(31, 19)],
            "val/cat": [(20, 20)],
            "val/dog": [(25, 40)],
        },
    )
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "work" / "cache"


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files that are looked into."""
    paths = []
    measure = scan.measure

    def noting(root, file):
        paths.append(file.path)
        return measure(root, file)

    monkeypatch.setattr(scan, "measure", noting)
    return paths


def load(folder, cache, split="train"):
    return load_split(str(folder), split, cache_dir=str(cache))


def test_only_what_changed_is_opened_again(folder, cache, opened):
    first = load(folder, cache)
    assert sorted(opened) == first.paths
    (written,) = cache.iterdir()
    opened.clear()
    again = load(folder, cache)
    assert again.heights.tolist() == first.heights.tolist() == [20, 21, 31]
    assert again.widths.tolist() == first.widths.tolist() == [30, 31, 19]
    assert opened == []
    dog = folder / "train" / "dog"
    os.utime(dog / "0.jpg", ns=(0, 0))
    picture(5, 6).save(dog / "1.jpg")
    (folder / "train" / "cat" / "0.jpg").unlink()
    assert load(folder, cache).heights.tolist() == [21, 31, 5]
    assert sorted(opened) == ["train/dog/0.jpg", "train/dog/1.jpg"]
    assert list(cache.iterdir()) == [written]


def test_a_bad_file_does_not_cost_what_is_known_of_the_others(
    folder, cache, opened
):
    bad = folder / "train" / "dog" / "bad.jpg"
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.jpg is empty"):
        load(folder, cache)
    bad.unlink()
    opened.clear()
    assert len(load(folder, cache)) == 3
    assert opened == []


def test_a_scan_that_is_stopped_goes_on_where_it_was(
    tmp_path, monkeypatch, opened
):
    """Files measured up to the last writing of the cache stay so."""
    monkeypatch.setattr(scan, "_CHUNK", 2)
    monkeypatch.setattr(scan, "_SAVE_SECONDS", 0.0)
    odd_files.write(
        tmp_path, {f"{i:02}.jpg": odd_files.JPEG for i in range(40)}
    )
    files = [File(f"{i:02}.jpg", 1, 1, stat.S_IFREG) for i in range(40)]
    cache = str(tmp_path / "sizes.npz")

    class StoppedError(BaseException):
        pass

    steps = []

    def stop(progress, count):
        steps.append(count)
        if len(steps) == 5:
            raise StoppedError

    monkeypatch.setattr(scan.Progress, "advance", stop)
    with pytest.raises(StoppedError):
        scan.look_at(str(tmp_path), files, cache=cache)
    monkeypatch.undo()
    measured = len(steps) * 2
    sizes, bad = scan.look_at(str(tmp_path), files, cache=cache)
    assert (sizes == [odd_files.HEIGHT, odd_files.WIDTH]).all() and not bad
    with np.load(cache) as kept:
        assert len(kept["sizes"]) == 40
    assert measured == 10


def test_the_cache_is_written_while_looking(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_CHUNK", 1)
    monkeypatch.setattr(scan, "_SAVE_SECONDS", 0.0)
    odd_files.write(tmp_path, {f"{i}.jpg": odd_files.JPEG for i in range(9)})
    files = [File(f"{i}.jpg", 1, 1, stat.S_IFREG) for i in range(9)]
    counts = []
    write = scan.SizeCache.write

    def noting(cache, sizes):
        counts.append(int((sizes[:, 0] > 0).sum()))
        write(cache, sizes)

    monkeypatch.setattr(scan.SizeCache, "write", noting)
    scan.look_at(str(tmp_path), files, cache=str(tmp_path / "sizes.npz"))
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


@pytest.mark.parametrize("content", [b"", b"no npz", b"PK\3\4 cut off"])
def test_a_broken_cache_is_written_anew(folder, cache, content):
    load(folder, cache, "val")
    (path,) = cache.iterdir()
    whole = path.stat().st_size
    path.write_bytes(content)
    assert load(folder, cache, "val").heights.tolist() == [20, 25]
    assert path.stat().st_size == whole


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    occupied = tmp_path / "file"
    occupied.touch()
    assert len(load(folder, occupied)) == 3


def test_train_and_val_have_caches_of_their_own(folder, cache):
    for split in ("train", "val"):
        load(folder, cache, split)
    assert len(list(cache.iterdir())) == 2


def test_progress_shows_on_long_scans_only(folder, capfd, monkeypatch):
    load_split(str(folder), "train")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("san.data.progress._LINE_SECONDS", 0.0)
    load_split(str(folder), "train")
    assert capfd.readouterr().err == (
        "looking at the images: 3 of 3, 0 s left\n"
    )
