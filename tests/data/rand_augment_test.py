"""Operations that are told which and how strong, against PIL's."""

import numpy as np
import pytest
import torch
from nvidia.dali.auto_aug import rand_augment
from PIL import Image, ImageEnhance

from san.data import alterations, plan
from san.data.alterations import Alterations
from san.data.pipeline import ImagePipeline
from san.data.rand_augment import RandAugment
from san.data.settings import Data
from tests.data.sample_images import grey_levels, picture

SIDE = 37
NAMES = [suite.name for suite in rand_augment.get_rand_augment_suite()]


def altered(names, negated, magnitude):
    """A picture after operations, and before: uint8 [side, side, 3]."""
    data = Data(
        image_size=SIDE,
        resize_size=SIDE,
        rand_augment_ops=len(names),
        rand_augment_magnitude=magnitude,
    )
    before = np.asarray(picture(SIDE, SIDE, seed=5))
    operations = np.array([[NAMES.index(name) for name in names]], np.int32)
    augment = RandAugment(data, 3, 1, None)
    (found,) = augment(
        torch.from_numpy(before.copy())[None],
        Alterations(
            operations,
            np.array([negated], np.int32),
            np.zeros((1, 4), np.int64),
        ),
    )
    assert found.dtype == torch.uint8
    return found.numpy(), before


def test_as_many_operations_as_are_drawn():
    assert len(NAMES) == alterations.NUM_OPERATIONS
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("color", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("negated", [0, 1])
def test_enhancing_is_that_of_pil(name, enhance, negated):
    found, before = altered([name], [negated], 20)
    factor = 1 + (-1) ** negated * 0.9 * 20 / 30
    expected = enhance(Image.fromarray(before)).enhance(factor)
    difference = found.astype(int) - np.asarray(expected)
    assert abs(difference).max() <= 2


def test_posterize_keeps_high_bits():
    found, before = altered(["posterize"], [0], 30)
    assert np.array_equal(found, before & 0xF0)


@pytest.mark.parametrize("negated", [0, 1])
def test_translation_goes_either_way(negated):
    found, before = altered(["translate_x"], [negated], 30)
    shift = round(SIDE * 100 / 224)
    expected = np.full_like(before, 128)
    if negated:
        expected[:, :-shift] = before[:, shift:]
    else:
        expected[:, shift:] = before[:, :-shift]
    assert np.array_equal(found, expected)


def test_one_after_the_other():
    found, before = altered(["posterize", "identity", "solarize"], [0] * 3, 30)
    assert np.array_equal(found, 255 - (before & 0xF0))
    found, before = altered(["solarize", "identity", "posterize"], [0] * 3, 30)
    assert np.array_equal(found, (255 - before) & 0xF0)


@pytest.fixture
def paths(tmp_path):
    names = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, name in enumerate(names):
        picture(40 + number, 61, seed=number).save(name)
    return names


def test_altered_after_the_crop_and_erased_to_the_mean(paths):
    plain = Data(image_size=SIDE, resize_size=SIDE)
    images, sizes = np.arange(5), (np.arange(40, 45), np.full(5, 61))

    def run(data):
        crops = plan.training_crops(images, *sizes, 1, 2, data)
        (batch,) = ImagePipeline(data, 5, "cpu").run([(paths, crops)])
        return batch, crops.alterations

    expected, nothing = run(plain)
    assert nothing is None
    settings = {"image_size": SIDE, "resize_size": SIDE}
    erased, drawn = run(Data(**settings, random_erasing=1.0))
    for square, (top, left, height, width) in zip(
        expected, drawn.erased, strict=True
    ):
        assert height > 0 and width > 0
        square[:, top : top + height, left : left + width] = 0
    assert torch.equal(erased, expected)
    both, drawn = run(Data(**settings, random_erasing=1.0, rand_augment_ops=1))
    levels, before = grey_levels(both, plain), grey_levels(expected, plain)
    names = [NAMES[operation] for (operation,) in drawn.operations]
    assert len(set(names)) > 2
    for name, found, square in zip(names, levels, before, strict=True):
        same = np.abs(found - square).max() < 0.01
        assert same == (name == "identity"), name


def test_draws_are_uniform_and_depend_on_the_image_and_the_epoch():
    data = Data(image_size=100, rand_augment_ops=2, random_erasing=0.3)

    def draw(images, epoch=0, seed=0):
        sizes = [np.full(len(images), 50)] * 2
        crops = plan.training_crops(images, *sizes, seed, epoch, data)
        return crops.alterations

    found = draw(np.arange(4000))
    counts = np.bincount(found.operations.ravel())
    assert len(counts) == alterations.NUM_OPERATIONS
    assert abs(counts / 8000 - 1 / 14).max() < 0.012
    assert np.mean(found.negated) == pytest.approx(0.5, abs=0.02)
    erased = found.erased[found.erased[:, 2] > 0]
    assert len(erased) / 4000 == pytest.approx(0.3, abs=0.03)
    areas = erased[:, 2] * erased[:, 3] / 1e4
    assert 0.018 < areas.min() and areas.max() < 0.41
    assert (erased[:, :2] + erased[:, 2:] <= 100).all()
    other = draw(np.array([7, 3999]))
    for name in ("operations", "negated", "erased"):
        part = getattr(found, name)[[7, 3999]]
        assert np.array_equal(getattr(other, name), part)
    for changed in (draw(np.arange(99), epoch=1), draw(np.arange(99), seed=1)):
        assert not np.array_equal(changed.operations, found.operations[:99])
    assert np.array_equal(found[3:5].erased, found.erased[3:5])
