import os

import pytest

from san.data import DataError, exclusion, load_split
from tests.data.sample_images import write_images


@pytest.fixture
def folder(tmp_path):
    sizes = {"train/a": [(8, 8)] * 3, "val/a": [(8, 8)] * 2}
    return write_images(tmp_path / "images", sizes)


def test_names_of_any_bytes_come_back(tmp_path):
    names = [
        "train/a/plain.jpg",
        "train/a b/ blanks .jpg",
        "val/a/new\nline.jpg",
        "val/a/back\\nslash\\.jpg",
        "val/a/return\r",
        os.fsdecode(b"val/a/latin\xe9.jpg"),
    ]
    file = tmp_path / "list.txt"
    file.write_bytes(exclusion.as_text(names))
    assert file.read_bytes().count(b"\n") == len(names)
    assert exclusion.read(str(file), "/nowhere") == names


def test_excluded_images_are_left_out_unopened(folder, capfd):
    os.makedirs(os.path.join(folder, "lists"))
    os.truncate(os.path.join(folder, "train/a/1.jpg"), 0)
    with open(os.path.join(folder, "lists/bad.txt"), "wb") as file:
        file.write(b"train/a/1.jpg\r\n\nval/a/0.jpg\nval/a/gone.jpg\n")
    train, val = (
        load_split(folder, split, exclude="lists/bad.txt")
        for split in ("train", "val")
    )
    assert train.paths == ["train/a/0.jpg", "train/a/2.jpg"]
    assert val.paths == ["val/a/1.jpg"]
    assert capfd.readouterr().err == (
        "1 image of train excluded by Data.exclude = 'lists/bad.txt'\n"
        "1 image of val excluded by Data.exclude = 'lists/bad.txt'; 1"
        " of its paths are not there\n"
    )


def test_two_lists_of_one_length_are_two_indices(folder, tmp_path):
    digests = set()
    for number in range(3):
        (tmp_path / "list.txt").write_text(f"train/a/{number}.jpg\n")
        index = load_split(folder, "train", exclude=str(tmp_path / "list.txt"))
        assert len(index) == 2
        digests.add(index.digest())
    assert len(digests) == 3


def test_lists_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(DataError) as error:
        load_split(folder, "train", exclude="none.txt")
    assert str(error.value) == (
        "Data: exclude must name a file that can be read, got"
        f" {folder}/none.txt (No such file or directory)"
    )
    file = tmp_path / "list.txt"
    for line in ("a/0.jpg", "/train/a/0.jpg", "train/a", "test/a/0.jpg"):
        file.write_text(f"train/a/0.jpg\n{line}\n")
        with pytest.raises(DataError) as error:
            load_split(folder, "train", exclude=str(file))
        assert str(error.value) == (
            "Data: exclude must list paths such as train/CLASS/NAME, got"
            f" {line!r} in line 2 of {file}"
        )
    file.write_text("".join(f"val/a/{number}.jpg\n" for number in (0, 1)))
    with pytest.raises(DataError, match="val/a: no images in it"):
        load_split(folder, "val", exclude=str(file))
