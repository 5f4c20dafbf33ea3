"""That batch norms have more than one value per channel to take statistics of.

One value has no variance. A single image has several values in every map but
one of a pixel, which networks end in where images are small.
"""

from san.jobs import network
from san.recipe import Recipe
from train import optimization


def check(recipe: Recipe, world_size: int) -> None:
    """Tries the configured network where it will get one image at a time.

    Args:
      recipe: the hyperparameters.
      world_size: the number of processes.

    Raises:
      ValueError: if that is too little, or as of optimization.parts.
    """
    if is_needed(recipe, world_size):
        network.try_one_image(
            f"Recipe.batch_size {recipe.batch_size}, .accumulation"
            f" {recipe.accumulation}, .sync_batch_norm"
            f" {recipe.sync_batch_norm}, processes {world_size}"
        )


def is_needed(recipe: Recipe, world_size: int) -> bool:
    """Whether a norm of some process takes its statistics from one image.

    Raises:
      ValueError: as of optimization.parts.
    """
    if world_size > 1 and recipe.sync_batch_norm:
        return False
    least = recipe.batch_size // world_size
    most = -(-recipe.batch_size // world_size)
    return any(
        part.stop - part.start == 1
        for share in (least, most)
        for part in optimization.parts(share, recipe.accumulation)
    )
