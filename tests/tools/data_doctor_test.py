"""Every planted defect is found, and training agrees."""

import collections
import json
import os
import shutil

import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from san.data import Data, DataError, TrainingLoader, load_split
from tests.data import odd_files
from tests.data.sample_images import picture, write_images
from tools.data_doctor import duplicates, examination, folders, main
from tools.data_doctor.checkup import Examiner

DATA = Data(image_size=8, resize_size=8, num_threads=1)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))

    def call(*arguments):
        with flagsaver.flagsaver():
            code = main.main(flags.FLAGS(["data_doctor", *arguments]))
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def root(tmp_path):
    """Two images of 60 x 80 pixels in each of four class folders."""
    sizes = {
        f"{split}/{name}": [(60, 80)] * 2
        for split in ("train", "val")
        for name in ("cat", "dog")
    }
    write_images(tmp_path / "images", sizes)
    return tmp_path / "images"


def examined(root):
    """What is found, as {kind: {path: (detail, excluded)}}."""
    listed, found = folders.list_splits(str(root))
    files = [file for files in listed.values() for file in files]
    checkups = examination.examine(str(root), files, num_processes=1, near=True)
    found += [one for checkup in checkups for one in checkup.findings]
    found += duplicates.find_duplicates(checkups)
    found += duplicates.find_near_duplicates(checkups, 3)
    by_kind = collections.defaultdict(dict)
    for one in found:
        by_kind[one.kind][one.path] = (one.detail, one.excluded)
    return by_kind


@pytest.fixture(scope="module")
def look_at(tmp_path_factory):
    """Looks at a file of a name and content."""
    root = tmp_path_factory.mktemp("examiner")
    examiner = Examiner(str(root), near=False)

    def look(name, content):
        path = root / "train" / "a" / name
        odd_files.write(path.parent, {name: content})
        listed, _ = folders.list_splits(str(root))
        (file,) = listed["train"]
        checkup = examiner.look_at(file)
        path.unlink()
        return checkup

    return look


@pytest.mark.parametrize("name", odd_files.ACCEPTED)
def test_what_is_decoded_is_not_excluded(look_at, name):
    checkup = look_at(name, odd_files.ACCEPTED[name])
    assert not any(one.is_problem or one.excluded for one in checkup.findings)
    assert checkup.pixels_digest


KIND_OF = {
    "empty.jpg": "empty",
    "notes.txt": "no_image",
    "a.gif": "no_image",
    "lossless.jpg": "unsupported",
    "12bit.jpg": "unsupported",
    "no_end.jpg": "cut_off",
    "half.bmp": "cut_off",
    "half.webp": "cut_off",
    "half.png": "cut_off",
}


@pytest.mark.parametrize("name", odd_files.REFUSED)
def test_what_the_scan_refuses_is_excluded(look_at, name):
    content, reason = odd_files.REFUSED[name]
    (found,) = look_at(name, content).findings
    assert found.is_problem and found.excluded
    assert reason in found.detail
    assert found.kind == KIND_OF.get(name, found.kind)
    assert "undecodable" not in found.kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad_check.png", "libpng error: IDAT: CRC error"),
        ("bad_pixels.png", "libpng error: IDAT: incorrect data check"),
        ("half_the_rows.png", "libpng error: Not enough image data"),
        ("bad_tables.jpg", "Bogus DHT index"),
    ],
)
def test_damaged_pixels_are_told_in_the_decoders_words(look_at, name, words):
    found = look_at(name, odd_files.DAMAGED[name]).findings[0]
    assert (found.kind, found.excluded) == ("undecodable", True)
    assert words in found.detail


def test_half_grey_and_warned_of(root):
    whole = (root / "train" / "cat" / "0.jpg").read_bytes()
    half = whole[: len(whole) * 6 // 10]
    codes = whole[:-400] + bytes(398)
    for split in ("train", "val"):
        (root / split / "cat" / "half.jpg").write_bytes(half + b"\xff\xd9")
    (root / "train" / "dog" / "codes.jpg").write_bytes(codes + b"\xff\xd9")
    found = examined(root)
    detail, excluded = found["half_grey"]["train/cat/half.jpg"]
    rows = int(detail.split()[2])
    assert detail == f"the last {rows} of 60 rows are grey"
    assert 8 <= rows < 40 and excluded
    # Validation keeps what can be decoded.
    assert found["half_grey"]["val/cat/half.jpg"] == (detail, False)
    ((path, (detail, excluded)),) = found["damaged"].items()
    assert (path, excluded) == ("train/dog/codes.jpg", True)
    assert detail.startswith("Corrupt JPEG data: ")


def test_half_grey_images_that_were_encoded_again(root):
    cat = root / "train" / "cat"
    image = picture(60, 80, seed=20)
    image.paste((128, 128, 128), (0, 40, 80, 60))
    image.save(cat / "again.jpg")
    # Padded with grey on either side; grey all over; a grey line.
    for name, boxes in (
        ("padded.jpg", [(0, 0, 80, 20), (0, 40, 80, 60)]),
        ("grey.jpg", [(0, 0, 80, 60)]),
        ("line.png", [(0, 57, 80, 60)]),
    ):
        image = picture(60, 80, seed=len(name))
        for box in boxes:
            image.paste((128, 128, 128), box)
        image.save(cat / name)
    found = examined(root)
    assert list(found) == ["half_grey"]
    (path,) = found["half_grey"]
    assert path == "train/cat/again.jpg"


def test_what_is_only_to_be_known(root):
    dog = root / "train" / "dog"
    image = picture(60, 80, seed=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("CMYK").save(dog / "cmyk.jpg")
    picture(60, 80, seed=10).save(dog / "turned.jpg", exif=exif)
    picture(31, 80, seed=11).save(dog / "tiny.png")
    picture(60, 80, seed=12).save(dog / "png.JPEG", "PNG")
    Image.new("L", (8000, 6300)).save(dog / "huge.jpg", quality=1)
    Image.new("I;16", (40, 40)).save(dog / "deep.png")
    (dog / "Thumbs.db").write_bytes(b"x")
    assert examined(root) == {
        "cmyk": {"train/dog/cmyk.jpg": ("is converted to RGB", False)},
        "exif_turned": {"train/dog/turned.jpg": ("orientation 6", False)},
        "tiny": {"train/dog/tiny.png": ("80 x 31", False)},
        "wrong_extension": {"train/dog/png.JPEG": ("is a PNG image", False)},
        "huge": {"train/dog/huge.jpg": ("8000 x 6300", False)},
        "sixteen_bit": {
            "train/dog/deep.png": ("the high bytes are taken", False)
        },
        "clutter": {"train/dog": ("1 'Thumbs.db'", False)},
    }


def test_things_that_are_no_files(root):
    dog = root / "train" / "dog"
    os.mkfifo(dog / "pipe.jpg")
    (dog / "folder.jpg").mkdir()
    (dog / "nowhere.jpg").symlink_to("gone.jpg")
    (dog / "device.jpg").symlink_to("/dev/null")
    assert examined(root) == {
        "no_file": {
            "train/dog/pipe.jpg": ("is a named pipe, not a file", True),
            "train/dog/folder.jpg": ("is a folder", True),
            "train/dog/device.jpg": ("is a device, not a file", True),
        },
        "dead_link": {
            "train/dog/nowhere.jpg": (
                "is a link to gone.jpg, which is not there",
                True,
            )
        },
    }


def test_duplicates(root):
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    shutil.copy(root / "val" / "cat" / "0.jpg", cat / "leaked.jpg")
    shutil.copy(root / "val" / "cat" / "1.jpg", root / "val" / "dog" / "2.jpg")
    shutil.copy(cat / "0.jpg", cat / "again.jpg")
    with Image.open(dog / "0.jpg") as image:
        image.save(dog / "as_png.png")
    shutil.copy(cat / "1.jpg", dog / "other.jpg")
    found = examined(root)
    assert found == {
        "in_both_splits": {
            "train/cat/leaked.jpg": (
                "has the same bytes as val/cat/0.jpg",
                True,
            )
        },
        "in_two_classes": {
            "train/cat/1.jpg": (
                "has the same bytes as train/dog/other.jpg",
                True,
            ),
            "train/dog/other.jpg": (
                "has the same bytes as train/cat/1.jpg",
                True,
            ),
        },
        "duplicate": {
            "train/cat/again.jpg": (
                "has the same bytes as train/cat/0.jpg",
                True,
            ),
            "train/dog/as_png.png": (
                "has the same pixels as train/dog/0.jpg",
                True,
            ),
            "val/dog/2.jpg": ("has the same bytes as val/cat/1.jpg", False),
        },
    }


def test_near_duplicates(root):
    cat = root / "train" / "cat"
    with Image.open(cat / "0.jpg") as image:
        image.save(root / "val" / "dog" / "worse.jpg", quality=60)
        image.resize((40, 30)).save(root / "val" / "dog" / "smaller.png")
    for name in ("black.png", "white.png"):
        Image.new("L", (40, 40), name[0] == "w").save(cat / name)
    near = examined(root)["near_duplicate"]
    assert set(near) == {"val/dog/worse.jpg", "val/dog/smaller.png"}
    for detail, excluded in near.values():
        assert detail.startswith("looks like ") and not excluded


def test_class_folders(root):
    os.rename(root / "val" / "dog", root / "val" / "Dog ")
    (root / "train" / "empty").mkdir()
    (root / "train" / "linked").symlink_to("/gone")
    shutil.copytree(root / "val" / "cat", root / "val" / "CAT")
    found = examined(root)
    assert found["class_folder"] == {
        "train/empty": ("val has no such folder", False),
        "train/linked": ("is a link to nowhere", False),
        "train/dog": ("val has no such folder, but 'Dog '", False),
        "val/Dog ": ("train has no such folder, but 'dog'", False),
        "val/CAT": ("train has no such folder, but 'cat'", False),
    }
    assert found["odd_class_name"] == {
        "val/Dog ": ("'Dog ' has blanks", False),
        "val/cat": ("differs in case or blanks only from 'CAT'", False),
    }


def test_several_processes_find_the_same(root, monkeypatch):
    monkeypatch.setattr(examination, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(examination, "_CHUNK", 3)
    (root / "train" / "cat" / "bad.png").write_bytes(
        odd_files.DAMAGED["bad_check.png"]
    )
    listed, _ = folders.list_splits(str(root))
    files = [file for files in listed.values() for file in files]
    one, two = (
        examination.examine(str(root), files, num_processes=count, near=True)
        for count in (1, 2)
    )
    assert one == two
    assert [checkup.path for checkup in one] == [file.path for file in files]


def test_what_is_left_after_exclusion_trains(root, run, tmp_path):
    cat = root / "train" / "cat"
    bad = {name: content for name, (content, _) in odd_files.REFUSED.items()}
    odd_files.write(cat, bad | odd_files.DAMAGED | odd_files.HALF_GREY)
    odd_files.write(cat, odd_files.ACCEPTED)
    odd_files.write(cat, {"line\nbreak.jpg": b"", "latin\udce9.jpg": b"x"})
    odd_files.write(root / "val" / "cat", odd_files.DAMAGED)
    code, out, err = run(
        "--data_dir=images", "--exclude=list.txt", "--json=found.json"
    )
    assert (code, err) == (1, f"written: {tmp_path / 'found.json'}\n")
    assert f"Data.exclude='{tmp_path}/list.txt'" in out
    assert "train/cat/line\\nbreak.jpg: is empty" in out
    with pytest.raises(DataError, match="files cannot be used"):
        load_split(str(root), "train")
    for split in ("train", "val"):
        index = load_split(str(root), split, exclude=str(tmp_path / "list.txt"))
        loader = TrainingLoader(index, DATA, batch_size=1, seed=0, device="cpu")
        assert len(list(loader.epoch(0))) == len(index)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["num_files"]["val"] == 4 + len(odd_files.DAMAGED)
    assert found["num_problems"] == sum(
        one["is_problem"] for one in found["findings"]
    )
    excluded = {one["path"] for one in found["findings"] if one["excluded"]}
    assert len((tmp_path / "list.txt").read_bytes().splitlines()) == len(
        excluded
    )


def test_a_clean_folder(root, run, tmp_path):
    code, out, _ = run("--data_dir=images", "--exclude=list.txt")
    assert code == 0
    assert out.splitlines()[:2] == [
        f"{root}: files: 4 in train, 4 in val",
        "nothing found",
    ]
    assert (tmp_path / "list.txt").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data_dir must name a folder with train/CLASS/* and val/CL"),
        (["--data_dir=none"], "--data_dir must name a folder with train"),
        (["--data_dir=images", "--json=a/b"], "--json must be a file in an"),
        (["--data_dir=images", "more"], "everything must be a flag"),
    ],
)
def test_wrong_use(root, run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err and err.count("\n") == 1
