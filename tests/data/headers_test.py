import os

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from san.data import headers, plan
from san.data.errors import DataError
from san.data.pipeline import ImagePipeline
from san.data.settings import Data
from tests.data import odd_files
from tests.data.odd_files import HEIGHT, WIDTH

DATA = Data(image_size=8, resize_size=8, num_threads=1)
WHOLE = plan.Crops(
    windows=np.array([[0, 0, HEIGHT, WIDTH]], np.int32),
    scales=np.ones((1, 2)),
    corners=np.zeros((1, 2), np.int64),
    flips=np.zeros(1, np.int32),
)


@pytest.fixture(scope="module")
def pipeline():
    return ImagePipeline(DATA, 1, "cpu")


def scanned(path):
    with open(path, "rb") as file:
        return headers.size(file, os.path.getsize(path))


def decoded(pipeline, path):
    ((window,),) = pipeline.windows([([str(path)], WHOLE)])
    return window.numpy()


def pil_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


@pytest.mark.parametrize("name", odd_files.ACCEPTED)
def test_what_is_accepted_is_decoded_as_pil_does(
    tmp_path, pipeline, name, monkeypatch
):
    # PIL's own limits on texts, which DALI does not have.
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 3 << 20)
    path = tmp_path / name
    path.write_bytes(odd_files.ACCEPTED[name])
    assert scanned(path) == (HEIGHT, WIDTH)
    pixels = decoded(pipeline, path)
    assert np.abs(pixels - pil_pixels(path)).max() <= 1
    assert pixels.std() > 1 or name == "runs.bmp"


@pytest.mark.parametrize("name", odd_files.REFUSED)
def test_what_is_refused_is_not_decoded(tmp_path, pipeline, name):
    content, reason = odd_files.REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        scanned(path)
    assert reason in str(error.value)
    assert str(error.value).startswith("is ")
    with pytest.raises(DataError, match="cannot be decoded"):
        decoded(pipeline, path)


@pytest.mark.parametrize("name", odd_files.DAMAGED)
def test_what_only_decoding_shows(tmp_path, pipeline, name):
    path = tmp_path / name
    path.write_bytes(odd_files.DAMAGED[name])
    assert scanned(path) == (HEIGHT, WIDTH)
    with pytest.raises(DataError, match="which only decoding shows"):
        decoded(pipeline, path)


def test_16_bit_grey_keeps_its_high_bytes(tmp_path, pipeline):
    rows = odd_files.noise_rows(2 * WIDTH)
    path = tmp_path / "grey16.png"
    path.write_bytes(odd_files.raw_png(16, 0, rows))
    assert scanned(path) == (HEIGHT, WIDTH)
    found = decoded(pipeline, path)
    values = np.frombuffer(b"".join(rows), ">u2").reshape(HEIGHT, WIDTH, 1)
    assert np.abs(found - values / 257).max() <= 1


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000"])
def test_formats_that_are_left_out(tmp_path, kind):
    path = tmp_path / "image.jpg"
    path.write_bytes(odd_files.encoded(kind))
    with pytest.raises(DataError, match="is not a JPEG, PNG, BMP or WebP"):
        scanned(path)


def test_a_segment_that_ends_before_it_begins(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(odd_files.JPEG[:2] + b"\xff\xe0\0\1" + bytes(90))
    with pytest.raises(DataError, match="is a JPEG with a damaged segment"):
        scanned(path)
