import math

import numpy as np
import pytest
import torch

from san.recipe import Recipe
from train import optimization

CPU = torch.device("cpu")


def rates(recipe):
    return [
        optimization.learning_rate_at(recipe, epoch)
        for epoch in range(recipe.epochs)
    ]


def test_cosine_by_hand():
    found = rates(Recipe(epochs=4, learning_rate=0.2))
    half = 0.1 * math.sqrt(0.5)
    assert found == pytest.approx([0.2, 0.1 + half, 0.1, 0.1 - half])


def test_cosine_is_that_of_torch():
    recipe = Recipe(epochs=10)
    optimizer = optimization.create_optimizer(torch.nn.Linear(2, 2), recipe)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for rate in rates(recipe):
        assert rate == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_steps_by_hand():
    recipe = Recipe(
        epochs=6,
        learning_rate=0.5,
        schedule="step",
        step_epochs=(2, 5),
        step_factor=0.1,
    )
    expected = [0.5, 0.5, 0.05, 0.05, 0.05, 0.005]
    assert rates(recipe) == pytest.approx(expected)


def test_published_steps():
    found = rates(Recipe(schedule="step"))
    places = [0, 29, 30, 59, 60, 89, 90, 99]
    expected = [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    assert [found[place] for place in places] == pytest.approx(expected)


def test_warm_up_rises_to_the_rate_and_cosine_follows():
    recipe = Recipe(epochs=7, learning_rate=0.3, warmup_epochs=2)
    found = rates(recipe)
    assert found[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert found[2:] == pytest.approx(
        rates(Recipe(epochs=5, learning_rate=0.3))
    )


def test_optimizer_has_the_recipe_on_every_parameter():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    recipe = Recipe(momentum=0.7, weight_decay=0.01)
    optimizer = optimization.create_optimizer(model, recipe)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters())) == 4
    assert (group["lr"], group["momentum"]) == (0.1, 0.7)
    assert group["weight_decay"] == 0.01
    optimization.set_hyperparameters(optimizer, Recipe(), 50)
    assert (group["lr"], group["momentum"]) == (pytest.approx(0.05), 0.9)
    assert group["weight_decay"] == 1e-4


def published_loss(logits, labels, smoothing):
    """The published form, written out."""
    num_classes = logits.shape[1]
    target = torch.full_like(logits, smoothing / (num_classes - 1))
    target.scatter_(1, labels[:, None], 1 - smoothing)
    return -(target * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_the_published_form(num_classes, smoothing):
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(
        7, num_classes, dtype=torch.double, generator=generator
    )
    labels = torch.randint(num_classes, (7,), generator=generator)
    found = optimization.smoothed_cross_entropy(logits, labels, smoothing)
    expected = published_loss(logits, labels, smoothing)
    torch.testing.assert_close(found, expected)


def test_label_smoothing_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    labels = torch.tensor([0])
    found = optimization.smoothed_cross_entropy(logits, labels, 0.1)
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(("smoothing", "num_classes"), [(0.5, 2), (0.1, 1)])
def test_smoothing_must_leave_the_label_likeliest(smoothing, num_classes):
    with pytest.raises(ValueError, match=r"label_smoothing must be below"):
        optimization.check_smoothing(smoothing, num_classes)


def test_mixup_is_off_by_default():
    images = torch.randn(4, 3, 2, 2)
    assert optimization.mixup_weight(Recipe(), 3, 4) == 1.0
    assert optimization.mix(images, 1.0) is images


def test_mixup_weight_depends_on_seed_epoch_and_step_alone():
    recipe = Recipe(mixup_alpha=0.2)
    found = {
        optimization.mixup_weight(Recipe(mixup_alpha=0.2, seed=seed), *place)
        for seed in (0, 1)
        for place in ((0, 0), (0, 1), (1, 0))
    }
    assert len(found) == 6
    assert optimization.mixup_weight(recipe, 1, 0) in found


def test_mixup_weight_is_beta_distributed():
    alpha = 0.4
    recipe = Recipe(mixup_alpha=alpha)
    draws = [optimization.mixup_weight(recipe, 0, step) for step in range(2000)]
    assert 0 <= min(draws) and max(draws) <= 1
    assert np.mean(draws) == pytest.approx(0.5, abs=0.03)
    assert np.var(draws) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def test_neighbours_are_mixed():
    images = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(5, 1, 1, 1)
    assert optimization.mixup_partners(5, CPU).tolist() == [1, 0, 3, 2, 4]
    mixed = optimization.mix(images, 0.75).flatten()
    torch.testing.assert_close(
        mixed, torch.tensor([1.25, 1.75, 3.25, 3.75, 5.0])
    )


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (2, 4, 2)])
def test_mixed_images_do_not_depend_on_the_number_of_processes(sizes):
    images = torch.randn(8, 3, 2, 2)
    parts = [optimization.mix(part, 0.3) for part in images.split(sizes)]
    assert torch.equal(torch.cat(parts), optimization.mix(images, 0.3))


def test_mixed_loss_is_that_of_mixed_targets():
    logits = torch.randn(6, 5, dtype=torch.double)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    found = optimization.mixed_loss(logits, labels, 0.1, 0.3)
    partners = labels[[1, 0, 3, 2, 5, 4]]
    expected = 0.3 * published_loss(logits, labels, 0.1)
    expected += 0.7 * published_loss(logits, partners, 0.1)
    torch.testing.assert_close(found, expected)
