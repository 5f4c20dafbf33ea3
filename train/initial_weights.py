"""The weights that training begins with, where they are those of a file."""

import os
import warnings
from typing import Any

from torch import nn

import san
from eval import class_order
from san import checkpoints
from san.jobs import config, processes
from san.networks import pretrained
from san.recipe import Recipe
from train import messages
from train.checkpointing import Run


def begin(run: Run, process: processes.Process) -> None:
    """Gives a run its initial weights, if its recipe names any, and says so.

    Args:
      run: at its start, with fresh weights.
      process: this process.

    Raises:
      OSError, ValueError: as load.
    """
    run.origin = load(run.model, run.recipe, list(run.index.classes))
    if run.average:
        run.average.module.load_state_dict(run.model.state_dict())
    if process.is_first:
        messages.print_initial(run.model, run.recipe, run.origin)


def try_out(recipe: Recipe) -> None:
    """Finds what is wrong with the initial weights, before images are listed.

    Raises:
      OSError, ValueError: if they cannot be read, or are of another network
        than the configured one.
    """
    if path := _path_of(recipe):
        with warnings.catch_warnings():
            # What of the head is left out load says.
            warnings.simplefilter("ignore")
            san.create_model(checkpoint=path)


def load(
    model: nn.Module, recipe: Recipe, classes: list[str]
) -> dict[str, Any] | None:
    """Gives a fresh network the initial weights, if there are any.

    Args:
      model: the network.
      recipe: with the file, and what becomes of its head.
      classes: of the training images, in the order of the model's outputs.

    Returns:
      What checkpoints are to say of it: the file's name, its SHA-256 and
      what was left out.

    Raises:
      OSError, ValueError: as try_out, or if nothing tells whether a head
        of as many classes is of the same ones.
    """
    path = _path_of(recipe)
    if path is None:
        return None
    checkpoint = checkpoints.read_checkpoint(path)
    is_new = _is_head_new(checkpoint, path, recipe.head, classes)
    left_out = pretrained.load(model, checkpoint, path, new_head=is_new)
    return {
        "file": os.path.basename(path),
        "sha256": checkpoints.sha256(path),
        "left_out": left_out,
    }


def _path_of(recipe: Recipe) -> str | None:
    """The file with the initial weights, if there is one."""
    name = recipe.initial_checkpoint
    return None if name is None else config.user_path(name)


def _is_head_new(
    checkpoint: dict[str, Any], path: str, head: str, classes: list[str]
) -> bool:
    """Whether a head is new where it has as many classes as the images."""
    if head == "new":
        return True
    state_dict = checkpoints.state_dict_of(checkpoint, path)
    count = pretrained.num_classes_of(state_dict)
    if count != len(classes):
        if head == "kept":
            raise ValueError(
                "train: Recipe.head must not be 'kept' where"
                f" initial_checkpoint has not the images' {len(classes)}"
                f" classes, got {count or 'no'} classes in {path}"
            )
        return False  # There are no rows to keep: see pretrained.load.
    if head == "kept":
        return False
    names = class_order.class_names(checkpoint, len(classes))
    if names is None:
        raise ValueError(
            "train: Recipe.initial_checkpoint must name its classes, as there"
            f" are {count} like the images', got none in {path}; give"
            " Recipe.head = 'kept' if they are the same in the same order, or"
            " else 'new'"
        )
    return names != classes
