"""Mixup and CutMix: images that are part one, part another."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from san.recipe import Recipe
from train import random_numbers


@dataclasses.dataclass(frozen=True)
class Mixing:
    """What a step does to each image and its partner.

    Attributes:
      weight: of the image itself, in [0, 1]; the partner has the rest.
      box: None, or top, left, bottom, right in pixels of what the partner
        covers. Without it the two are blended.
    """

    weight: float = 1.0
    box: tuple[int, int, int, int] | None = None


def check_pairs(recipe: Recipe, world_size: int) -> str:
    """That images have partners where they are to be mixed.

    Args:
      recipe: the hyperparameters.
      world_size: the number of processes.

    Returns:
      What to warn of, if the pairs are not those of a single process.

    Raises:
      ValueError: if a process gets a single image in a step.
    """
    if not (recipe.mixup_alpha or recipe.cutmix_alpha):
        return ""
    count = recipe.batch_size
    if count < 2 * world_size:
        raise ValueError(
            "Recipe: batch_size must be two images or more for each process,"
            " where mixup and CutMix mix pairs of them, got"
            f" {count} for {world_size}"
        )
    if world_size == 1 or count % (2 * world_size) == 0:
        return ""
    return (
        "mixup and CutMix mix other pairs than a single process would:"
        f" Recipe.batch_size, {count}, is no multiple of two images for each"
        f" of {world_size} processes"
    )


def draw(recipe: Recipe, epoch: int, step: int, side: int) -> Mixing:
    """What a step draws.

    Mixup: the weight is Beta(alpha, alpha). CutMix: such a weight is the part
    of the area that the partner leaves; its box lies anywhere, and is cut off
    where the image ends.

    Source: "mixup: Beyond Empirical Risk Minimization", ICLR 2018; "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable
    Features", ICCV 2019, section 3.1.

    Args:
      recipe: with mixup_alpha and cutmix_alpha; with both, one of them is
        drawn.
      epoch: counted from zero.
      step: of the epoch, counted from zero.
      side: rows and columns of the images.
    """

    def random(stream: int) -> np.random.Generator:
        return random_numbers.of_step(stream, recipe, epoch, step)

    mixup, cutmix = recipe.mixup_alpha, recipe.cutmix_alpha
    if mixup and cutmix:
        if random(random_numbers.MIXUP_OR_CUTMIX).random() < 0.5:
            cutmix = 0.0
        else:
            mixup = 0.0
    if mixup:
        return Mixing(float(random(random_numbers.MIXUP).beta(mixup, mixup)))
    if cutmix:
        return _cutmix(random(random_numbers.CUTMIX), cutmix, side)
    return Mixing()


def _cutmix(random: np.random.Generator, alpha: float, side: int) -> Mixing:
    half = side * np.sqrt(1 - random.beta(alpha, alpha)) / 2
    centres = random.integers(side, size=2)
    top, left = np.rint(centres - half).clip(0, side).astype(int).tolist()
    bottom, right = np.rint(centres + half).clip(0, side).astype(int).tolist()
    covered = (bottom - top) * (right - left) / side**2
    return Mixing(1 - covered, (top, left, bottom, right))


def partners(count: int, device: torch.device) -> Tensor:
    """The partner of each image: neighbours (0 1) (2 3) ... change places.

    The loader's order is uniformly random, so the neighbour is a uniformly
    random image already, and no image has to travel between processes:
    while each process holds an even number of images the pairs are the same
    for any number of processes. A last odd image is its own partner.
    """
    numbers = torch.arange(count, device=device) ^ 1
    return numbers.clamp_(max=count - 1)


def mix(images: Tensor, mixing: Mixing) -> Tensor:
    """Mixes each image [N, C, H, W] with its partner."""
    if mixing.weight == 1.0:
        return images
    others = images[partners(len(images), images.device)]
    if mixing.box is None:
        return torch.lerp(others, images, mixing.weight)
    top, left, bottom, right = mixing.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed
