"""Random numbers of a training step, the same in every process.

They are a function of (seed, epoch, step): a resumed run draws what it would
have drawn. Those of images lie in san/data/plan.py.
"""

import numpy as np

from san.recipe import Recipe

# What they are for; keeps the streams apart.
MIXUP = 0x6D69787570
CUTMIX = 0x6375746D6978
MIXUP_OR_CUTMIX = 0x63686F696365
DEPTH = 0x6465707468


def of_step(
    stream: int, recipe: Recipe, epoch: int, step: int
) -> np.random.Generator:
    """The numbers of one stream for a step of an epoch, counted from zero."""
    seeds = np.random.SeedSequence((stream, recipe.seed, epoch, step))
    return np.random.Generator(np.random.Philox(seeds))
