"""Which bottlenecks a training step leaves out of which images."""

import numpy as np
import torch
from torch import nn

from san.networks.stochastic_depth import residual_blocks
from san.recipe import Recipe
from train import random_numbers


def leave_out(
    model: nn.Module,
    recipe: Recipe,
    epoch: int,
    step: int,
    share: slice,
    part: slice,
) -> None:
    """Draws for the images that come next; without stochastic depth nothing.

    Args:
      model: whose bottlenecks get the draws.
      recipe: the hyperparameters.
      epoch: counted from zero.
      step: of the epoch, counted from zero.
      share: this process's part of the batch of all processes.
      part: the images of it that come next.
    """
    if not recipe.stochastic_depth:
        return
    blocks = residual_blocks(model)
    random = random_numbers.of_step(random_numbers.DEPTH, recipe, epoch, step)
    draws = random.random((recipe.batch_size, len(blocks)), np.float32)
    mine = torch.from_numpy(draws[share][part])
    device = next(model.parameters()).device
    for block, row in zip(blocks, mine.to(device).T.contiguous(), strict=True):
        block.drop_draws = row
