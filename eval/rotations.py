"""Table 9: what a network that was trained on upright images makes of others.

Shape letters: N images of C channels and S x S pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import torch
import tqdm
from torch import Tensor
from torch.nn import functional as F

from eval import validation
from eval.loading import Trained
from san import data

# What lies beyond the border of an image that is turned by no quarter turns.
FILLS = ("mean", "black")


def rotate(images: Tensor, degrees: float, fill: Tensor | float = 0) -> Tensor:
    """Images turned clockwise about their centre, of the same size.

    Quarter turns move pixels and change none. Other angles interpolate
    bilinearly and cut the corners off.

    Args:
      images: [N, C, S, S].
      degrees: the angle.
      fill: the value of what was outside, or one for each channel, [C, 1, 1].
    """
    quarters, rest = divmod(degrees, 90)
    if rest == 0:
        return images.rot90(-int(quarters), (2, 3))
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    # Where each pixel comes from: turned back, x to the right, y down.
    matrix = images.new_tensor([[cos, sin, 0], [-sin, cos, 0]])
    grid = F.affine_grid(
        matrix.expand(len(images), 2, 3),
        list(images.shape),
        align_corners=False,
    )
    return F.grid_sample(images - fill, grid, align_corners=False) + fill


def turn_upside_down(images: Tensor) -> Tensor:
    """The rows of the images in the opposite order: mirrored, not turned."""
    return images.flip(2)


# The columns of table 9.
ORIENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "90 clockwise": functools.partial(rotate, degrees=90),
    "180": functools.partial(rotate, degrees=180),
    "270 clockwise": functools.partial(rotate, degrees=270),
    "upside-down": turn_upside_down,
}

_QUARTERS = {
    0.0: "none",
    90.0: "90 clockwise",
    180.0: "180",
    270.0: "270 clockwise",
}


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """What a network made of its images in each position.

    Attributes:
      orientations: by the names of ORIENTATIONS.
      angles: by degrees clockwise.
    """

    orientations: dict[str, validation.Result]
    angles: dict[float, validation.Result]


def measure(
    trained: Trained,
    angles: Sequence[float],
    fill: str,
    batch_size: int | None,
) -> Accuracies:
    """Evaluates a network on its images in every position.

    Args:
      trained: the network and the images.
      angles: further rotations, in degrees clockwise.
      fill: of FILLS: the mean colour, which is 0 to the network, or black.
      batch_size: images at a time over all processes; None for the recipe's.
    """
    loader, colour = trained.batches(batch_size), _fill(trained, fill)
    orientations = {
        name: _evaluate(trained, loader, name, turn)
        for name, turn in ORIENTATIONS.items()
    }
    by_angle = {}
    for angle in angles:
        known = _QUARTERS.get(angle % 360)
        by_angle[angle] = (
            orientations[known]
            if known
            else _evaluate(
                trained,
                loader,
                f"{angle:g} degrees",
                functools.partial(rotate, degrees=angle, fill=colour),
            )
        )
    return Accuracies(orientations, by_angle)


def _evaluate(
    trained: Trained,
    loader: data.ValidationLoader,
    name: str,
    turn: Callable[[Tensor], Tensor],
) -> validation.Result:
    batches = tqdm.tqdm(
        loader,
        desc=name,
        unit="batch",
        leave=False,
        disable=None if trained.process.is_first else True,
    )
    result = validation.validate(
        trained.model,
        ((turn(images), labels) for images, labels in batches),
        trained.num_classes,
        trained.process.device,
        trained.recipe.precision,
    )
    validation.check_finite(result, trained.checkpoint)
    return result


def _fill(trained: Trained, name: str) -> Tensor:
    """The colour as the network sees it, [3, 1, 1]."""
    mean, std = map(torch.tensor, (trained.settings.mean, trained.settings.std))
    colour = -mean / std if name == "black" else torch.zeros(3)
    return colour.view(3, 1, 1).to(trained.process.device)
