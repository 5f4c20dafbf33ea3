import math

import pytest
import torch

from san.recipe import Recipe
from train import optimization


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


def test_by_step_the_schedule_is_that_of_as_many_epochs():
    """A step of 3 an epoch is what an epoch of three times as many is."""
    for schedule in ("cosine", "step"):
        by_step = Recipe(
            epochs=5,
            warmup_epochs=1,
            schedule=schedule,
            schedule_interval="step",
            step_epochs=(2, 4),
        )
        by_epoch = Recipe(
            epochs=15,
            warmup_epochs=3,
            schedule=schedule,
            step_epochs=(6, 12),
        )
        found = [
            optimization.learning_rate_at(by_step, epoch, step, 3)
            for epoch in range(5)
            for step in range(3)
        ]
        assert found == pytest.approx(rates(by_epoch))


def test_the_rate_follows_the_batch_if_asked():
    assert rates(Recipe(batch_size=64))[0] == 0.1
    followed = Recipe(batch_size=64, reference_batch_size=256)
    assert rates(followed)[0] == pytest.approx(0.025)
    assert rates(followed)[50] == pytest.approx(0.0125)


def test_optimizer_has_the_recipe_on_every_parameter():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    recipe = Recipe(momentum=0.7, weight_decay=0.01)
    optimizer = optimization.create_optimizer(model, recipe)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters())) == 4
    assert (group["lr"], group["momentum"]) == (0.1, 0.7)
    assert group["weight_decay"] == 0.01
    optimization.set_hyperparameters(optimizer, Recipe(), 0.05)
    assert (group["lr"], group["momentum"]) == (0.05, 0.9)
    assert group["weight_decay"] == 1e-4


def test_adamw_has_the_recipe():
    model = torch.nn.Linear(2, 3)
    recipe = Recipe(optimizer="adamw", betas=(0.8, 0.95), weight_decay=0.05)
    optimizer = optimization.create_optimizer(model, recipe)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.95), 0.05)
    changed = Recipe(optimizer="adamw", weight_decay=0.1)
    optimization.set_hyperparameters(optimizer, changed, 0.3)
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 0.1)
    assert group["lr"] == 0.3


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_need_not_decay(name):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    recipe = Recipe(
        optimizer=name, decayed="matrices", momentum=0.0, weight_decay=0.1
    )
    optimizer = optimization.create_optimizer(model, recipe)
    optimization.set_hyperparameters(optimizer, recipe, 0.5)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weight, *others = model.parameters()
    torch.testing.assert_close(weight, before[0] * (1 - 0.5 * 0.1))
    assert all(map(torch.equal, others, before[1:]))


@pytest.mark.parametrize("norm", [0.0, 0.5, 100.0])
def test_the_whole_gradient_is_clipped(norm):
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4)]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    whole = optimization.gradient_norm(parameters)
    assert whole.item() == pytest.approx(math.sqrt(7 * 4.0))
    recipe = Recipe(clip_gradient_norm=norm)
    optimization.clip_gradient(parameters, recipe, whole)
    found = torch.cat([parameter.grad for parameter in parameters])
    factor = min(1.0, norm / whole.item()) if norm else 1.0
    torch.testing.assert_close(found, torch.full((7,), 2.0 * factor))
