import numpy as np
import pytest

from san.data import plan
from san.data.settings import Data


def crops_of(height, width, count, data=None, seed=0, epoch=0):
    images = np.arange(count)
    return plan.training_crops(
        images,
        np.full(count, height),
        np.full(count, width),
        seed,
        epoch,
        data or Data(),
    )


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner", "window"),
    [
        # 58.5 goes to the even 58; 240 rows and 282 columns and the filter's
        # reach of one more end at 353.03 and 414.96.
        (375, 500, (256, 341), (16, 58), (354, 415)),
        (500, 375, (341, 256), (58, 16), (415, 354)),
        (256, 256, (256, 256), (16, 16), (241, 241)),
        # The long side is truncated. Enlarged: the filter reaches one pixel.
        (100, 101, (256, 258), (16, 17), (95, 96)),
        (3, 1, (768, 256), (272, 16), (3, 1)),
    ],
)
def test_validation_crop_is_torchvisions(
    height, width, resized, corner, window
):
    crops = plan.validation_crops(np.array([height]), np.array([width]), Data())
    assert crops.windows.tolist() == [[0, 0, *window]]
    np.testing.assert_allclose(
        crops.scales, [[height / resized[0], width / resized[1]]], rtol=1e-12
    )
    assert crops.corners.tolist() == [list(corner)]
    assert crops.flips.tolist() == [0]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (60, 41), (7, 9)])
def test_training_crops_lie_in_the_image(height, width):
    crops = crops_of(height, width, 500)
    top, left, rows, columns = crops.windows.T
    assert (top >= 0).all() and (top + rows <= height).all()
    assert (left >= 0).all() and (left + columns <= width).all()
    assert (rows > 0).all() and (columns > 0).all()
    np.testing.assert_allclose(
        crops.scales * 224, np.stack([rows, columns], axis=1), rtol=1e-12
    )
    assert not crops.corners.any()


def test_training_crops_have_the_published_distribution():
    # With small crops of a square every first try fits.
    data = Data(min_crop_area=0.1, max_crop_area=0.4)
    crops = crops_of(1000, 1000, 4000, data)
    top, left, rows, columns = crops.windows.T.astype(float)
    area = rows * columns / 1e6
    aspect = np.log(columns / rows) / np.log(4 / 3)
    for values, low, high in [
        (area, 0.1, 0.4),
        (aspect, -1, 1),
        (top / (1000 - rows), 0, 1),
        (left / (1000 - columns), 0, 1),
    ]:
        assert values.min() == pytest.approx(low, abs=0.01 * (high - low))
        assert values.max() == pytest.approx(high, abs=0.01 * (high - low))
        counts, _ = np.histogram(values, bins=4, range=(low, high))
        assert abs(counts - 1000).max() < 5 * np.sqrt(4000 * 3 / 16)
    assert abs(crops.flips.mean() - 0.5) < 0.04


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [
        (10, 1000, [0, 493, 10, 13]),
        (1000, 10, [493, 0, 13, 10]),
        (50, 1, [24, 0, 1, 1]),
        (1, 50, [0, 24, 1, 1]),
    ],
)
def test_thin_images_get_the_centre(height, width, window):
    # No crop of at least 90 % of the area has an allowed aspect ratio.
    crops = crops_of(height, width, 20, Data(min_crop_area=0.9))
    assert crops.windows.tolist() == [window] * 20


def test_whole_images_without_augmentation():
    data = Data(min_crop_area=1, min_aspect=1, max_aspect=1, flip=False)
    crops = crops_of(32, 32, 50, data)
    assert crops.windows.tolist() == [[0, 0, 32, 32]] * 50
    assert not crops.flips.any()


def test_a_crop_depends_on_seed_epoch_and_image_only():
    together = crops_of(375, 500, 10)
    alone = plan.training_crops(
        np.array([7]), np.array([375]), np.array([500]), 0, 0, Data()
    )
    np.testing.assert_array_equal(alone.windows, together.windows[7:8])
    assert len({tuple(window) for window in together.windows}) == 10
    for other in (
        crops_of(375, 500, 10, seed=1),
        crops_of(375, 500, 10, epoch=1),
    ):
        assert (other.windows != together.windows).any(axis=1).all()


def test_epoch_order_is_a_new_permutation_each_epoch():
    orders = [plan.epoch_order(3, epoch, 1000) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert (orders[0] != orders[1]).mean() > 0.98
    assert (orders[1] != orders[2]).mean() > 0.98
    assert (orders[0] != plan.epoch_order(4, 0, 1000)).mean() > 0.98
    np.testing.assert_array_equal(orders[1], plan.epoch_order(3, 1, 1000))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shares_make_up_the_batch(world_size):
    parts = [
        np.arange(16)[plan.rank_share(16, rank, world_size)]
        for rank in range(world_size)
    ]
    assert np.concatenate(parts).tolist() == list(range(16))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
