import numpy as np
import pytest
import torch
from PIL import Image

from san.data import plan
from san.data.errors import DataError
from san.data.pipeline import ImagePipeline
from san.data.settings import Data
from tests.data.sample_images import grey_levels, picture, pil_pixels

SIZES = [
    (375, 500),
    (500, 341),
    (341, 256),
    (224, 224),
    (40, 50),
    (1200, 333),
    (50, 1),
    (1, 70),
]


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def decode(paths, crops, data, device="cpu"):
    pipeline = ImagePipeline(data, len(paths), device)
    (images,) = pipeline.run([([str(path) for path in paths], crops)])
    assert images.device.type == device
    assert images.dtype == torch.float32
    assert images.shape == (len(paths), 3, data.image_size, data.image_size)
    return grey_levels(images.cpu(), data)


def whole_images(sizes, data):
    heights, widths = np.array(sizes).T
    return plan.validation_crops(heights, widths, data)


def pil_validation(image, data):
    """Resize and CenterCrop in torchvision's own words."""
    width, height = image.size
    short = data.resize_size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    left = round((size[0] - data.image_size) / 2.0)
    top = round((size[1] - data.image_size) / 2.0)
    side = data.image_size
    pixels = pil_pixels(image, size)
    return pixels[top : top + side, left : left + side]


def test_validation_equals_pil_within_one_grey_level(tmp_path):
    data = Data()
    paths = [tmp_path / f"{number}.jpg" for number in range(len(SIZES))]
    for number, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        picture(*size, seed=number).save(path, quality=90)
    found = decode(paths, whole_images(SIZES, data), data)
    for path, pixels in zip(paths, found, strict=True):
        expected = pil_validation(Image.open(path), data)
        assert np.abs(pixels - expected).max() < 1.01
        assert np.abs(pixels - expected).mean() < 0.3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("side", [24, 64, 300])
def test_training_crops_equal_pil_within_one_grey_level(tmp_path, side, device):
    # Noise, so that a wrong weight at the border cannot hide.
    data = Data(image_size=side, resize_size=side)
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (233, 150, 3), np.uint8)
    image = Image.fromarray(noise)
    image.save(path)
    count = 40
    crops = plan.training_crops(
        np.arange(count), np.full(count, 233), np.full(count, 150), 0, 0, data
    )
    found = decode([path] * count, crops, data, device)
    for pixels, window, flip in zip(
        found, crops.windows.tolist(), crops.flips, strict=True
    ):
        top, left, rows, columns = window
        cropped = image.crop((left, top, left + columns, top + rows))
        expected = pil_pixels(cropped, (side, side))
        if flip:
            expected = expected[:, ::-1]
        assert np.abs(pixels - expected).max() < 1.01
    assert 0 < crops.flips.sum() < count


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(200, 60), (33, 32), (10, 1), (32, 32)])
def test_validation_equals_pil_up_to_the_border(tmp_path, size, device):
    data = Data(image_size=32, resize_size=32)
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    (found,) = decode([path], whole_images([size], data), data, device)
    expected = pil_validation(Image.open(path), data)
    assert np.abs(found - expected).max() < 1.01


def save_jpeg(image, path):
    image.save(path, "JPEG", quality=90)


def save_turned_by_exif(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, "JPEG", quality=90, exif=exif)


@pytest.mark.parametrize(
    ("name", "mode", "save"),
    [
        ("cmyk.JPEG", "CMYK", save_jpeg),
        ("grey.JPEG", "L", save_jpeg),
        ("turned.JPEG", "RGB", save_turned_by_exif),
        ("png_inside.JPEG", "RGB", lambda i, p: i.save(p, "PNG")),
        ("rgba.png", "RGBA", lambda i, p: i.save(p)),
        ("grey_alpha.png", "LA", lambda i, p: i.save(p)),
        ("palette.png", "P", lambda i, p: i.save(p)),
        ("plain.bmp", "RGB", lambda i, p: i.save(p)),
        ("plain.webp", "RGB", lambda i, p: i.save(p, lossless=True)),
        ("progressive.jpg", "RGB", lambda i, p: i.save(p, progressive=True)),
        ("naïve name, 100%.jpg", "RGB", save_jpeg),
    ],
)
def test_every_kind_of_file_equals_pil(tmp_path, name, mode, save):
    data = Data(image_size=48, resize_size=56)
    path = tmp_path / name
    image = picture(70, 90, mode=mode)
    if "A" in mode:
        image.putalpha(picture(70, 90, seed=1, mode="L"))
    save(image, path)
    (found,) = decode([path], whole_images([(70, 90)], data), data)
    expected = pil_validation(Image.open(path), data)
    assert np.abs(found - expected).max() < 1.01
    assert expected.std() > 10


def test_normalisation_by_hand(tmp_path):
    data = Data(
        image_size=4, resize_size=4, mean=(0.1, 0.2, 0.5), std=(0.5, 1, 2)
    )
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), (255, 51, 0)).save(path)
    pipeline = ImagePipeline(data, 1, "cpu")
    (images,) = pipeline.run([([str(path)], whole_images([(4, 4)], data))])
    expected = torch.tensor([(1 - 0.1) / 0.5, 0.0, -0.5 / 2])
    torch.testing.assert_close(
        images, expected.view(1, 3, 1, 1).expand(1, 3, 4, 4)
    )


@pytest.fixture
def batches(tmp_path):
    """Batches of 4, 4 and 1 images, and their data settings."""
    data = Data(image_size=16, resize_size=16)
    paths = [str(tmp_path / f"{number}.png") for number in range(9)]
    for number, path in enumerate(paths):
        picture(20, 20, seed=number).save(path)
    crops = whole_images([(20, 20)] * 9, data)
    return data, [
        (paths[start : start + 4], crops[start : start + 4])
        for start in (0, 4, 8)
    ]


def test_runs_follow_each_other_and_batches_stay_as_they_are(batches):
    data, planned = batches
    pipeline = ImagePipeline(data, 4, "cpu")
    first = list(pipeline.run(planned))
    copies = [images.clone() for images in first]
    assert [len(images) for images in first] == [4, 4, 1]
    for _ in range(5):
        again = list(pipeline.run(planned))
    del pipeline
    for images, copy, later in zip(first, copies, again, strict=True):
        assert torch.equal(images, copy)
        assert torch.equal(images, later)


def test_runs_at_the_same_time_and_runs_cut_short(batches):
    data, planned = batches
    pipeline = ImagePipeline(data, 4, "cpu")
    expected = list(pipeline.run(planned))
    next(pipeline.run(planned))
    for one, two, images in zip(
        pipeline.run(planned), pipeline.run(planned), expected, strict=True
    ):
        assert torch.equal(one, images)
        assert torch.equal(two, images)
    assert list(pipeline.run([])) == []


def damage(path):
    """Overwrites the middle of a PNG: header and end are still right."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)


def test_undecodable_files_are_named(tmp_path, batches):
    data, planned = batches
    damage(tmp_path / "5.png")
    (tmp_path / "6.png").unlink()
    pipeline = ImagePipeline(data, 4, "cpu")
    run = pipeline.run(planned)
    with pytest.raises(DataError) as error:
        list(run)
    assert f"{tmp_path}/5.png, {tmp_path}/6.png cannot be decoded" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    (images,) = pipeline.run(planned[:1])
    assert len(images) == 4


def test_a_file_that_shrank_since_the_scan_is_named(tmp_path, batches):
    data, planned = batches
    picture(10, 10).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"2\.png cannot be decoded: its pixel"):
        list(ImagePipeline(data, 4, "cpu").run(planned))
