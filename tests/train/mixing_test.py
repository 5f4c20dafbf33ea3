import numpy as np
import pytest
import torch

from san.recipe import Recipe
from train import mixing
from train.mixing import Mixing

CPU = torch.device("cpu")


def draws(count, **recipe):
    """What the first steps draw, for images of 11 x 11."""
    settings = Recipe(**recipe)
    return [mixing.draw(settings, 0, step, 11) for step in range(count)]


def test_off_by_default():
    images = torch.randn(4, 3, 2, 2)
    assert mixing.draw(Recipe(), 3, 4, 2) == Mixing(1.0, None)
    assert mixing.mix(images, Mixing()) is images


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_draws_depend_on_seed_epoch_and_step_alone(kind):
    found = {
        mixing.draw(Recipe(**{kind: 1.0}, seed=seed), *place, 224)
        for seed in (0, 1)
        for place in ((0, 0), (0, 1), (1, 0))
    }
    assert len(found) == 6
    assert mixing.draw(Recipe(**{kind: 1.0}), 1, 0, 224) in found


def test_mixup_weight_is_beta_distributed():
    alpha = 0.4
    found = draws(2000, mixup_alpha=alpha)
    assert all(drawn.box is None for drawn in found)
    weights = [drawn.weight for drawn in found]
    assert 0 <= min(weights) and max(weights) <= 1
    assert np.mean(weights) == pytest.approx(0.5, abs=0.03)
    assert np.var(weights) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def test_cutmix_weight_is_what_the_box_leaves():
    found = draws(2000, cutmix_alpha=1.0)
    for drawn in found:
        top, left, bottom, right = drawn.box
        assert 0 <= top <= bottom <= 11 and 0 <= left <= right <= 11
        area = (bottom - top) * (right - left)
        assert drawn.weight == pytest.approx(1 - area / 121)
    # A box is cut off at the border, so that it covers less than 1 / 2.
    assert 0.6 < np.mean([drawn.weight for drawn in found]) < 0.75
    tops = {drawn.box[0] for drawn in found}
    assert tops >= set(range(10))


def test_of_two_each_step_takes_one():
    found = draws(1000, mixup_alpha=0.4, cutmix_alpha=1.0)
    boxes = sum(drawn.box is not None for drawn in found)
    assert 430 < boxes < 570


def test_neighbours_are_mixed():
    images = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(5, 1, 1, 1)
    assert mixing.partners(5, CPU).tolist() == [1, 0, 3, 2, 4]
    mixed = mixing.mix(images, Mixing(0.75)).flatten()
    torch.testing.assert_close(
        mixed, torch.tensor([1.25, 1.75, 3.25, 3.75, 5.0])
    )


def test_cutmix_replaces_the_box():
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 4).clone()
    mixed = mixing.mix(images, Mixing(1 - 2 / 16, (1, 2, 2, 4)))
    expected = images.clone()
    expected[0, :, 1, 2:], expected[1, :, 1, 2:] = 1.0, 0.0
    assert torch.equal(mixed, expected)
    assert images[0].unique() == 0.0


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (2, 4, 2)])
@pytest.mark.parametrize("drawn", [Mixing(0.3), Mixing(0.5, (0, 1, 1, 2))])
def test_mixed_images_do_not_depend_on_the_number_of_processes(sizes, drawn):
    images = torch.randn(8, 3, 2, 2)
    parts = [mixing.mix(part, drawn) for part in images.split(sizes)]
    assert torch.equal(torch.cat(parts), mixing.mix(images, drawn))


@pytest.mark.parametrize(
    ("batch_size", "world_size"), [(1, 1), (2, 2), (3, 2), (15, 8)]
)
def test_an_image_alone_has_no_partner(batch_size, world_size):
    recipe = Recipe(mixup_alpha=0.2, batch_size=batch_size)
    with pytest.raises(ValueError, match="two images or more for each proc"):
        mixing.check_pairs(recipe, world_size)
    assert not mixing.check_pairs(Recipe(batch_size=batch_size), world_size)


def test_other_pairs_in_several_processes_are_said():
    recipe = Recipe(cutmix_alpha=1.0, batch_size=6)
    assert not mixing.check_pairs(recipe, 1)
    assert "6, is no multiple of two images for each of 2 p" in (
        mixing.check_pairs(recipe, 2)
    )
    assert not mixing.check_pairs(recipe, 3)
