"""Optimiser, learning rate, loss and mixup of the published recipe.

Pure functions of the recipe and the position in training; the loop that
calls them is train/trainer.py.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from san.recipe import Recipe

# Philox keys of mixup: one stream of its own beside the data's.
_MIXUP_STREAM = 0x6D69787570


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with momentum, weight decay on every parameter."""
    return torch.optim.SGD(
        model.parameters(),
        lr=learning_rate_at(recipe, 0),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def learning_rate_at(recipe: Recipe, epoch: int) -> float:
    """The learning rate of an epoch, counted from zero.

    The rate changes once per epoch. With E epochs, W of them warm-up,
      warm-up: base * (epoch + 1) / (W + 1)
      cosine:  base * (1 + cos(pi * (epoch - W) / (E - W))) / 2
      step:    base * factor ** (number of step_epochs passed)
    """
    base, warmup = recipe.learning_rate, recipe.warmup_epochs
    if epoch < warmup:
        return base * (epoch + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        done = (epoch - warmup) / (recipe.epochs - warmup)
        return base * (1 + math.cos(math.pi * done)) / 2
    passed = sum(epoch >= boundary for boundary in recipe.step_epochs)
    return base * recipe.step_factor**passed


def set_hyperparameters(
    optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: int
) -> float:
    """Gives the optimiser the recipe's values for an epoch; returns the rate.

    Also after loading a checkpoint: what the recipe says now holds, not what
    the optimiser was saved with.
    """
    rate = learning_rate_at(recipe, epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["momentum"] = recipe.momentum
        group["weight_decay"] = recipe.weight_decay
    return rate


def parts(count: int, accumulation: int) -> list[slice]:
    """Parts of so many images, as many as asked for; mixup's pairs stay whole.

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


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    """Mean cross-entropy against the published label smoothing.

    The target distribution is 1 - smoothing on the label and
    smoothing / (K - 1) on each of the K - 1 other classes. torch spreads its
    own smoothing over all K classes, so it is given smoothing * K / (K - 1).

    Args:
      logits: [N, K].
      labels: [N], integers in 0..K-1.
      smoothing: probability taken from the label.

    Returns:
      The mean over the N images, a scalar.

    Raises:
      ValueError: if the label would be less likely than the other classes.
    """
    num_classes = logits.shape[1]
    check_smoothing(smoothing, num_classes)
    if smoothing:
        smoothing *= num_classes / (num_classes - 1)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def check_smoothing(smoothing: float, num_classes: int) -> None:
    """Raises ValueError if the label would not be the likeliest class."""
    limit = (num_classes - 1) / num_classes
    if smoothing and smoothing >= limit:
        raise ValueError(
            "Recipe: label_smoothing must be below (K - 1) / K ="
            f" {limit:g} with K = {num_classes} classes, got {smoothing}"
        )


def mixup_weight(recipe: Recipe, epoch: int, step: int) -> float:
    """The weight of the first image of each mixed pair, in [0, 1].

    A pure function of (seed, epoch, step): every process draws the same.
    Without mixup it is 1.
    """
    if not recipe.mixup_alpha:
        return 1.0
    bits = np.random.Philox(
        np.random.SeedSequence((_MIXUP_STREAM, recipe.seed, epoch, step))
    )
    draw = np.random.Generator(bits).beta(
        recipe.mixup_alpha, recipe.mixup_alpha
    )
    return float(draw)


def mixup_partners(count: int, device: torch.device) -> Tensor:
    """The partner of each image: neighbours (0 1) (2 3) ... change places.

    The loader's order is uniformly random, so the neighbour is a uniformly
    random image already, and no image has to travel between processes:
    while each process holds an even number of images the pairs are the same
    for any number of processes. A last odd image is its own partner.
    """
    partners = torch.arange(count, device=device) ^ 1
    return partners.clamp_(max=count - 1)


def mix(images: Tensor, weight: float) -> Tensor:
    """Mixes each image [N, C, H, W] with its partner (mixup)."""
    if weight == 1.0:
        return images
    partners = mixup_partners(len(images), images.device)
    return torch.lerp(images[partners], images, weight)


def mixed_loss(
    logits: Tensor, labels: Tensor, smoothing: float, weight: float
) -> Tensor:
    """The loss of mixed images: both labels', weighted as the images are."""
    loss = smoothed_cross_entropy(logits, labels, smoothing)
    if weight == 1.0:
        return loss
    partners = mixup_partners(len(labels), labels.device)
    other = smoothed_cross_entropy(logits, labels[partners], smoothing)
    return weight * loss + (1 - weight) * other
