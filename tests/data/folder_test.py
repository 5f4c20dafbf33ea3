import os
import socket

import numpy as np
import pytest
from PIL import Image

from san.data import DataError, load_folder, load_split
from tests.data import odd_files
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


def test_class_folders_without_a_split(tmp_path, capsys):
    """As the test sets of others are distributed: spaces, a README, clutter."""
    write_images(tmp_path, {"n02": [(8, 9)], "n01": [(7, 6), (5, 5)]})
    (tmp_path / "n01" / "0.jpg").rename(tmp_path / "n01" / "art (1) of x.jpg")
    (tmp_path / "n01" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("hello")
    index = load_folder(str(tmp_path))
    assert (index.root, index.split) == (str(tmp_path), "")
    assert index.classes == ["n01", "n02"]
    assert index.paths == ["n01/1.jpg", "n01/art (1) of x.jpg", "n02/0.jpg"]
    assert index.labels.tolist() == [0, 0, 1]
    assert index.heights.tolist() == [5, 7, 8]
    assert capsys.readouterr().err == (
        f"no images, left out of {tmp_path}: 1 'Thumbs.db'\n"
    )


def test_class_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(
        DataError, match=r"class folders .*/none does not exist"
    ):
        load_folder(str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no class folders"):
        load_folder(str(tmp_path))
    (tmp_path / "n01").mkdir()
    with pytest.raises(
        DataError, match=r"/n01: no images in it; .*remove the folder$"
    ):
        load_folder(str(tmp_path))
    (tmp_path / "n01" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes.txt is not a JPEG"):
        load_folder(str(tmp_path))


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
    (folder / "train" / "0.jpg").write_bytes(odd_files.JPEG)
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


def test_classes_must_agree_for_training(folder):
    os.rename(folder / "val" / "dog", folder / "val" / "wolf")
    assert error_of(folder) == (
        f"train and val in {folder} must have the same class folders; only in"
        " train: dog; only in val: wolf"
    )
    assert load_split(str(folder), "val").classes == ["cat", "wolf"]


def test_folders_named_by_number_are_sorted_by_number(tmp_path):
    names = [str(number) for number in range(12)]
    write_images(tmp_path, {f"val/{name}": [(8, 8)] for name in names})
    index = load_split(str(tmp_path), "val")
    assert index.classes == names
    assert index.paths == [f"val/{name}/0.jpg" for name in names]
    assert index.labels.tolist() == list(range(12))
    os.rename(tmp_path / "val" / "11", tmp_path / "val" / "x11")
    classes = load_split(str(tmp_path), "val").classes
    assert classes == [*sorted(names[:-1]), "x11"]


def test_an_index_in_the_order_of_other_labels(tmp_path):
    names = [str(number) for number in range(11)]
    write_images(tmp_path, {f"val/{name}": [(8, 8), (9, 9)] for name in names})
    index = load_split(str(tmp_path), "val")
    text_order = sorted(names)
    moved = index.in_order_of(text_order)
    assert moved.classes == text_order
    assert moved.paths == [
        f"val/{name}/{number}.jpg" for name in text_order for number in (0, 1)
    ]
    assert moved.labels.tolist() == [i for i in range(11) for _ in (0, 1)]
    assert moved.heights.tolist() == [8, 9] * 11
    assert moved.digest() != index.digest()
    assert moved.in_order_of(names).digest() == index.digest()
    with pytest.raises(ValueError, match="must be those of the folder"):
        index.in_order_of(names[:-1])


@pytest.mark.parametrize("name", odd_files.REFUSED)
def test_a_bad_file_is_named(folder, name):
    content, reason = odd_files.REFUSED[name]
    path = folder / "train" / "dog" / name
    path.write_bytes(content)
    message = error_of(folder)
    assert message.startswith(f"{path} is ")
    assert reason in message
    assert message.endswith("whole image files only; replace or remove it")


def test_things_that_are_no_files_are_not_opened(folder, monkeypatch):
    cat = folder / "train" / "cat"
    (cat / "deeper").mkdir()
    (cat / "nowhere.jpg").symlink_to(folder / "nothing")
    os.mkfifo(cat / "pipe.jpg")
    (cat / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(cat)  # The names of sockets are short.
        server.bind("socket.jpg")
    message = error_of(folder)
    for reason in (
        f"{cat}/deeper is a folder",
        f"{cat}/nowhere.jpg is a link to {folder}/nothing, which is not there",
        f"{cat}/pipe.jpg is a named pipe, not a file",
        f"{cat}/device.jpg is a device, not a file",
        f"{cat}/socket.jpg is a socket, not a file",
        "5 files cannot be used: ",
    ):
        assert reason in message


def test_many_bad_files_are_named_by_their_reasons(folder, tmp_path):
    odd_files.write(
        folder / "train" / "dog",
        {name: content for name, (content, _) in odd_files.REFUSED.items()},
    )
    odd_files.write(
        folder / "train" / "cat", {f"bad{i}.jpg": b"" for i in range(10)}
    )
    message = error_of(folder, cache_dir=str(tmp_path / "work"))
    total = 10 + len(odd_files.REFUSED)
    assert message.startswith(f"{total} files cannot be used: ")
    assert (
        f"{folder}/train/cat/bad0.jpg is empty (10 more likewise);" in message
    )
    assert "and files for " in message
    listed = tmp_path / "work" / "unusable.txt"
    assert message.endswith(
        "replace or remove them, or leave them out by Data.exclude ="
        f" {str(listed)!r}"
    )
    assert len(listed.read_text().splitlines()) == total
    index = load_split(str(folder), "train", exclude=str(listed))
    assert len(index) == 3


def test_what_systems_leave_behind_is_left_out(folder, capfd):
    for name in ("train/cat/Thumbs.db", "train/dog/thumbs.DB"):
        (folder / name).write_bytes(b"x")
    (folder / "train" / "dog" / "desktop.ini").write_bytes(b"x")
    (folder / "train" / "dog" / "@eaDir").mkdir()
    (folder / "train" / "lost+found").mkdir()
    index = load_split(str(folder), "train")
    assert (len(index), index.classes) == (3, ["cat", "dog"])
    assert capfd.readouterr().err == (
        "no images, left out of train: 1 '@eaDir', 1 'Thumbs.db', 1"
        " 'desktop.ini', 1 'thumbs.DB'\n"
    )


def test_exif_does_not_turn_the_size(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(10, 40).save(folder / "val" / "dog" / "turned.jpg", exif=exif)
    index = load_split(str(folder), "val")
    assert index.heights.tolist()[2:] == [10]
    assert index.widths.tolist()[2:] == [40]
