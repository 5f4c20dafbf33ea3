"""Optimiser, learning rate and gradient of a recipe.

Pure functions of the recipe and the position in training; the loop that
calls them is train/trainer.py.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from san.recipe import Recipe
from train import stages


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW, over every parameter that is trained.

    The rate and the decay are those of the first step; see
    set_hyperparameters.
    """
    groups = _groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=recipe.base_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.SGD(
        groups,
        lr=recipe.base_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of each rate, and of these those that do not decay.

    The head's come first. A group without parameters stays, for checkpoints
    that have it.
    """
    by_distance: dict[int, list[nn.Parameter]] = {}
    for parameter, distance in stages.distances(model, recipe).items():
        by_distance.setdefault(distance, []).append(parameter)
    groups: list[dict[str, Any]] = []
    for distance, parameters in sorted(by_distance.items()):
        if recipe.decayed == "all":
            groups.append({"params": parameters, "distance": distance})
            continue
        groups += [
            {
                "params": [p for p in parameters if p.dim() >= 2],
                "distance": distance,
            },
            {
                "params": [p for p in parameters if p.dim() < 2],
                "distance": distance,
                "weight_decay": 0.0,
            },
        ]
    return groups


def learning_rate_at(
    recipe: Recipe, epoch: int, step: int = 0, steps_per_epoch: int = 1
) -> float:
    """The learning rate of a step of an epoch, both counted from zero.

    Counts in epochs or in steps, as the recipe's schedule_interval says. With
    t of them done, E in all, W of them warm-up,
      warm-up: base * (t + 1) / (W + 1)
      cosine:  base * (1 + cos(pi * (t - W) / (E - W))) / 2
      step:    base * factor ** (number of step_epochs passed)
    """
    base, unit, done = recipe.base_rate, 1, epoch
    if recipe.schedule_interval == "step":
        unit, done = steps_per_epoch, epoch * steps_per_epoch + step
    warmup, end = unit * recipe.warmup_epochs, unit * recipe.epochs
    if done < warmup:
        return base * (done + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        part = (done - warmup) / (end - warmup)
        return base * (1 + math.cos(math.pi * part)) / 2
    passed = sum(epoch >= boundary for boundary in recipe.step_epochs)
    return base * recipe.step_factor**passed


def set_hyperparameters(
    optimizer: torch.optim.Optimizer, recipe: Recipe, rate: float
) -> None:
    """Gives the optimiser the recipe's values and a learning rate.

    Also after loading a checkpoint: what the recipe says now holds, not what
    the optimiser was saved with.
    """
    kinds = 1 if recipe.decayed == "all" else 2
    for number, group in enumerate(optimizer.param_groups):
        if number % kinds == 0:
            group["weight_decay"] = recipe.weight_decay
        # Older checkpoints know of no distances.
        group["lr"] = rate * recipe.depth_decay ** group.get("distance", 0)
        if recipe.optimizer == "adamw":
            group["betas"] = tuple(recipe.betas)
        else:
            group["momentum"] = recipe.momentum


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm of all gradients together, on their device."""
    return nn.utils.get_total_norm(
        [p.grad for p in parameters if p.grad is not None]
    )


def clip_gradient(
    parameters: Iterable[nn.Parameter], recipe: Recipe, norm: Tensor
) -> None:
    """Scales the whole gradient down to the recipe's largest norm, if any.

    Waits for no device.

    Args:
      parameters: with their gradients.
      recipe: with the largest norm.
      norm: that of the gradient.
    """
    if recipe.clip_gradient_norm:
        nn.utils.clip_grads_with_norm_(
            parameters, recipe.clip_gradient_norm, norm
        )


def parts(count: int, accumulation: int) -> list[slice]:
    """Parts of so many images, as many as asked for; mixed pairs stay whole.

    Raises:
      ValueError: if there are fewer pairs of images than parts.
    """
    pairs = -(-count // 2)
    if accumulation > pairs:
        raise ValueError(
            "Recipe: accumulation must be at most half the images that a"
            f" process has in a step, {count}, got {accumulation}"
        )
    ends = [2 * (part * pairs // accumulation) for part in range(accumulation)]
    return [
        slice(start, end)
        for start, end in zip(ends, [*ends[1:], count], strict=True)
    ]
