import io
import os

import numpy as np
import pytest
from PIL import Image

from san.data import DataError, load_split
from tests.data.sample_images import picture, write_images


@pytest.fixture
def folder(tmp_path):
    write_images(
        tmp_path,
        {
            "train/cat": [(20, 30), (21, 31)],
            "train/dog": [(31, 19)],
            "val/cat": [(20, 20)],
            "val/dog": [(25, 40)],
        },
    )
    return tmp_path


def error_of(folder, split="train", **options):
    with pytest.raises(DataError) as error:
        load_split(str(folder), split, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def encoded(kind, **options):
    buffer = io.BytesIO()
    picture(60, 80).save(buffer, kind, **options)
    return buffer.getvalue()


def test_index(folder):
    index = load_split(str(folder), "train")
    assert (index.root, index.split) == (str(folder), "train")
    assert index.classes == ["cat", "dog"]
    assert index.paths == [
        "train/cat/0.jpg",
        "train/cat/1.jpg",
        "train/dog/0.jpg",
    ]
    assert index.labels.tolist() == [0, 0, 1]
    assert index.labels.dtype == np.int64
    assert index.heights.tolist() == [20, 21, 31]
    assert index.widths.tolist() == [30, 31, 19]
    assert len(index) == 3


def test_relative_folder_and_link(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "link").symlink_to(folder)
    index = load_split("link", "val")
    assert index.root == str(folder.parent / "link")
    assert index.paths == ["val/cat/0.jpg", "val/dog/0.jpg"]


def test_hidden_files_and_files_beside_the_classes_are_left_out(folder):
    (folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "cat" / "._0.jpg").write_bytes(b"x")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "README.txt").write_text("hello")
    assert len(load_split(str(folder), "train")) == 3


def test_validation_folder_alone_is_enough_for_evaluation(tmp_path):
    write_images(tmp_path, {"val/cat": [(8, 8)]})
    assert load_split(str(tmp_path), "val").classes == ["cat"]


def test_missing_folders(folder, tmp_path):
    layout = (
        "a data folder is laid out as ImageNet: <folder>/train/<class>/*.JPEG"
        " and <folder>/val/<class>/*.JPEG"
    )
    nowhere = tmp_path / "nowhere"
    assert error_of(nowhere) == (
        f"data folder {nowhere} does not exist; {layout}"
    )
    for split in ("train", "val"):
        os.rename(folder / split, folder / f"not_{split}")
        assert error_of(folder, split) == (
            f"{folder} has no folder '{split}'; {layout}"
        )
    os.mkdir(folder / "train")
    (folder / "train" / "0.jpg").write_bytes(encoded("JPEG"))
    assert error_of(folder) == (
        f"{folder}/train holds no class folders; {layout}"
    )


def test_an_unknown_split(folder):
    with pytest.raises(ValueError, match="must be 'train' or 'val', got 'x'"):
        load_split(str(folder), "x")


def test_empty_classes(folder):
    for split in ("train", "val"):
        os.mkdir(folder / split / "cow")
        (folder / split / "cow" / ".DS_Store").write_bytes(b"x")
    assert error_of(folder).startswith(
        f"{folder}/train/cow: no images in it; every class folder must hold"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_classes_must_agree(folder, split):
    os.rename(folder / "val" / "dog", folder / "val" / "wolf")
    assert error_of(folder, split) == (
        f"train and val in {folder} must have the same class folders; only in"
        " train: dog; only in val: wolf"
    )


JPEG = encoded("JPEG", quality=95)
PNG = encoded("PNG")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"no picture", "is not a JPEG, PNG, BMP or WebP image"),
        ("garbage.jpg", bytes(range(256)) * 8, "is not a JPEG, PNG"),
        ("moving.gif", encoded("GIF"), "is not a JPEG, PNG, BMP or WebP"),
        ("empty.jpg", b"", "is empty"),
        ("cut.jpg", JPEG[: len(JPEG) // 2], "is cut off or damaged"),
        ("cut_late.jpg", JPEG[:-2], "is cut off or damaged"),
        ("cut_early.jpg", JPEG[:100], "is not a JPEG, PNG"),
        ("cut.png", PNG[: len(PNG) // 2], "is cut off or damaged"),
        ("cut.bmp", encoded("BMP")[:-900], "is cut off or damaged"),
        ("cut.webp", encoded("WEBP")[:-90], "is not a JPEG, PNG"),
    ],
)
def test_a_bad_file_is_named(folder, name, content, reason):
    path = folder / "train" / "dog" / name
    path.write_bytes(content)
    message = error_of(folder)
    assert message.startswith(f"{path} {reason}")
    assert message.endswith("whole image files only; replace or remove it")


def test_other_things_in_a_class_folder(folder):
    cat = folder / "train" / "cat"
    (cat / "deeper").mkdir()
    (cat / "nowhere.jpg").symlink_to(folder / "nothing")
    message = error_of(folder)
    assert f"{cat}/deeper is a folder" in message
    assert (
        f"{cat}/nowhere.jpg cannot be read (No such file or directory)"
        in message
    )


def test_many_bad_files_are_counted(folder):
    for number in range(10):
        (folder / "train" / "dog" / f"bad{number}.jpg").write_bytes(b"")
    message = error_of(folder)
    for number in range(3):
        assert f"dog/bad{number}.jpg is empty" in message
    assert "bad3" not in message
    assert "and 7 more: class folders must hold" in message
    assert message.endswith("replace or remove them")


def test_a_whole_file_with_something_after_it_is_fine(folder):
    dog = folder / "train" / "dog"
    (dog / "1.jpg").write_bytes(JPEG + bytes(5000))
    (dog / "2.jpg").write_bytes(PNG + bytes(5000))
    picture(9, 1, mode="CMYK").save(dog / "3.JPEG")
    index = load_split(str(folder), "train")
    assert index.heights.tolist()[2:] == [31, 60, 60, 9]
    assert index.widths.tolist()[2:] == [19, 80, 80, 1]


def test_cache_spares_the_scan_until_a_file_changes(folder, tmp_path):
    cache = tmp_path / "work" / "cache"

    def load():
        return load_split(str(folder), "train", cache_dir=str(cache))

    first = load()
    (written,) = cache.iterdir()
    # What the files hold changes unseen: size and time stay as they were.
    dog = folder / "train" / "dog" / "0.jpg"
    status, content = dog.stat(), dog.read_bytes()
    dog.write_bytes(bytes(len(content)))
    os.utime(dog, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = load()
    assert second.heights.tolist() == first.heights.tolist()
    assert second.widths.tolist() == first.widths.tolist()
    # A new time is seen, and so is a new file.
    os.utime(dog, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert "dog/0.jpg is not a" in error_of(folder, cache_dir=str(cache))
    dog.write_bytes(content)
    picture(5, 6).save(folder / "train" / "dog" / "1.jpg")
    assert load().heights.tolist() == [20, 21, 31, 5]
    assert list(cache.iterdir()) == [written]


@pytest.mark.parametrize("content", [b"", b"no npz", b"PK\3\4 cut off"])
def test_a_broken_cache_is_written_anew(folder, tmp_path, content):
    cache = tmp_path / "cache"
    load_split(str(folder), "val", cache_dir=str(cache))
    (path,) = cache.iterdir()
    whole = path.stat().st_size
    path.write_bytes(content)
    index = load_split(str(folder), "val", cache_dir=str(cache))
    assert index.heights.tolist() == [20, 25]
    assert path.stat().st_size == whole


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    occupied = tmp_path / "file"
    occupied.touch()
    index = load_split(folder, "train", cache_dir=str(occupied))
    assert len(index) == len(load_split(folder, "train"))


def test_train_and_val_have_caches_of_their_own(folder, tmp_path):
    for split in ("train", "val"):
        load_split(str(folder), split, cache_dir=str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_progress_shows_on_long_scans_only(folder, capfd):
    load_split(str(folder), "train")
    assert capfd.readouterr().err == ""


def test_exif_does_not_turn_the_size(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(10, 40).save(folder / "val" / "dog" / "turned.jpg", exif=exif)
    index = load_split(str(folder), "val")
    assert index.heights.tolist()[2:] == [10]
    assert index.widths.tolist()[2:] == [40]
