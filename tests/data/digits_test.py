import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from san.data import Data, Digits, load_split, write_digits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_digits(str(tmp_path_factory.mktemp("digits") / "work"))


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in pathlib.Path(root).rglob("*.jpg")
    }


def test_counts_and_split(root):
    train, val = (load_split(root, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1437, 360)
    for index in (train, val):
        assert index.classes == [str(digit) for digit in range(10)]
        assert set(index.heights) == set(index.widths) == {32}
    counts = np.bincount(train.labels), np.bincount(val.labels)
    # The same part of every class, up to one image.
    np.testing.assert_allclose(counts[1], (counts[0] + counts[1]) / 5, atol=1)
    names = {os.path.basename(path) for path in train.paths + val.paths}
    assert len(names) == 1797


def test_files_show_scikit_learns_digits(root):
    digits = datasets.load_digits()
    for index in (load_split(root, split) for split in ("train", "val")):
        for place in range(0, len(index), 37):
            path = index.paths[place]
            number = int(os.path.basename(path).removesuffix(".jpg"))
            assert digits.target[number] == index.labels[place]
            with Image.open(os.path.join(root, path)) as image:
                assert image.format == "JPEG"
                small = image.resize((8, 8), Image.Resampling.BOX)
            found = np.asarray(small).ravel() / 255
            expected = digits.images[number].ravel() / 16
            assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_written_once_and_always_the_same(root, tmp_path):
    work = os.path.dirname(root)
    sample = pathlib.Path(root, "train", "0")
    before = sample.stat().st_mtime_ns
    assert write_digits(work) == root
    assert sample.stat().st_mtime_ns == before
    assert os.listdir(work) == [os.path.basename(root)]
    assert contents(write_digits(str(tmp_path))) == contents(root)


def write_fold(folder, fold):
    gin.parse_config(f"digits.fold = {fold}")
    try:
        return write_digits(str(folder), image_side=8)
    finally:
        gin.clear_config()


def test_five_folds_hold_out_every_image_once(tmp_path):
    held_out, sizes = [], []
    for fold in range(5):
        root = write_fold(tmp_path, fold)
        assert os.path.basename(root) == f"digits_8px_quality95_fold{fold}"
        train, val = (load_split(root, split) for split in ("train", "val"))
        names = [
            {os.path.basename(path) for path in index.paths}
            for index in (train, val)
        ]
        assert len(names[0]) + len(names[1]) == len(names[0] | names[1]) == 1797
        counts = np.bincount(train.labels), np.bincount(val.labels)
        # The same part of every class, up to one image.
        np.testing.assert_allclose(counts[1], (counts[0] + counts[1]) / 5, 0, 1)
        held_out += names[1]
        sizes.append(len(names[1]))
    assert len(set(held_out)) == len(held_out) == 1797
    assert sizes == [360, 360, 359, 359, 359]


def test_a_fold_is_always_the_same(tmp_path):
    one, other = (write_fold(tmp_path / name, 3) for name in "ab")
    assert contents(one) == contents(other)


def test_no_fold_is_the_usual_split(tmp_path):
    root = write_fold(tmp_path, None)
    assert os.path.basename(root) == "digits_8px_quality95"
    assert len(load_split(root, "val")) == 360


@pytest.mark.parametrize("fold", [-1, 5, 1.0, False, "0"])
def test_there_are_five_folds(fold):
    with pytest.raises(ValueError, match=r"fold must be None or lie in 0\.\.4"):
        Digits(fold=fold)


def test_another_size_gets_another_folder(root, tmp_path):
    other = write_digits(str(tmp_path), image_side=16)
    assert os.path.basename(other) != os.path.basename(root)
    assert set(load_split(other, "val").heights) == {16}


def test_several_processes_may_write_at_once(root, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        roots = set(pool.map(write_digits, 3 * [str(tmp_path)]))
    assert len(roots) == 1
    assert contents(roots.pop()) == contents(root)
    assert len(os.listdir(tmp_path)) == 1


def test_killed_while_writing_leaves_nothing_that_looks_whole(tmp_path):
    code = f"from san.data import write_digits; write_digits({str(tmp_path)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not list(tmp_path.rglob("train/*/*.jpg")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(list(tmp_path.rglob("*.jpg"))) < 1797
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert len(contents(write_digits(str(tmp_path)))) == 1797


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_side": 7}, "image_side must be at least 8, got 7"),
        ({"jpeg_quality": 0}, "jpeg_quality must lie in 1..95, got 0"),
    ],
)
def test_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_digits(str(tmp_path), **options)
    assert not list(tmp_path.iterdir())


def test_a_gin_file_can_name_it_as_the_source(tmp_path):
    gin.parse_config("Data.source = @write_digits\nwrite_digits.image_side = 8")
    try:
        source = Data().source
        root = source(str(tmp_path))
    finally:
        gin.clear_config()
    assert set(load_split(root, "val").widths) == {8}
