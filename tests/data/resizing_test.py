"""Windows resized, cut and flipped, against PIL's own pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from san.data import plan
from san.data.resizing import Resizer, square_by_torch
from san.data.settings import Data
from san.ops import resize
from tests.data.sample_images import grey_levels

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def noise(height, width):
    """The hardest of all images: a wrong weight or place cannot hide."""
    random = np.random.default_rng(height)
    return random.integers(0, 256, (height, width, 3), np.uint8)


def squares(windows, crops, data, device):
    """Grey levels [n, height, width, 3]."""
    resizer = Resizer(data, torch.device(device))
    batch = resizer([torch.from_numpy(w).to(device) for w in windows], crops)
    assert batch.device.type == device
    assert batch.dtype == torch.float32 and batch.is_contiguous()
    return grey_levels(batch.cpu(), data)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "size",
    [(31, 31), (62, 93), (1, 1), (1, 200), (9, 5), (640, 33), (30, 31)],
)
def test_windows_resize_as_pil(size, device):
    data = Data(image_size=31, resize_size=31)
    window = noise(*size)
    crops = plan.Crops(
        windows=np.array([[0, 0, *size]] * 2, np.int32),
        scales=np.array([size, size]) / 31,
        corners=np.zeros((2, 2), np.int64),
        flips=np.array([0, 1], np.int32),
    )
    straight, mirrored = squares([window, window], crops, data, device)
    expected = Image.fromarray(window).resize(
        (31, 31), Image.Resampling.BILINEAR
    )
    assert np.abs(straight - np.asarray(expected, float)).max() < 1.01
    np.testing.assert_array_equal(mirrored, straight[:, ::-1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "size", [(64, 100), (45, 32), (500, 375), (20, 33), (33, 32)]
)
def test_squares_of_cut_windows_are_those_of_whole_images(size, device):
    data = Data(image_size=32, resize_size=37)
    image = noise(*size)
    crops = plan.validation_crops(*np.array(size)[:, None], data)
    _, _, height, width = crops.windows[0]
    (found,) = squares([image[:height, :width].copy()], crops, data, device)
    rows, columns = np.rint(size / crops.scales[0]).astype(int).tolist()
    resized = Image.fromarray(image).resize(
        (columns, rows), Image.Resampling.BILINEAR
    )
    top, left = crops.corners[0]
    expected = np.asarray(resized, float)[top:, left:][:32, :32]
    assert np.abs(found - expected).max() < 1.01


@pytest.mark.parametrize(
    "size", [(31, 62), (70, 52), (41, 41), (500, 300), (12, 100), (3, 1)]
)
def test_torchs_filter_is_the_same(size):
    window = torch.from_numpy(noise(*size))
    scales, corner = [size[0] / 40, size[1] / 37], [6, 3]
    found = square_by_torch(window, 31, scales, corner)
    expected = torch.empty(3, 31, 31)
    resize.write_square(
        window,
        expected,
        scales=scales,
        corner=corner,
        mirrored=False,
        shift=(0, 0, 0),
        factor=(1, 1, 1),
    )
    assert (found - expected).abs().max() <= 1
    assert expected.std() > 1


@pytest.mark.parametrize("device", DEVICES)
def test_batches_stay_as_they_are_and_windows_too(device):
    data = Data(image_size=8, resize_size=8)
    resizer = Resizer(data, torch.device(device))
    crops = plan.validation_crops(np.array([20, 20]), np.array([30, 30]), data)
    windows = [
        torch.from_numpy(noise(20, 30)[:height, :width].copy()).to(device)
        for height, width in crops.windows[:, 2:]
    ]
    kept = [window.clone() for window in windows]
    first = resizer(windows, crops)
    copy = first.clone()
    resizer([255 - window for window in windows], crops)
    assert torch.equal(first, copy)
    for window, before in zip(windows, kept, strict=True):
        assert torch.equal(window, before)
