"""Where training stands, and the checkpoint that says so.

A checkpoint has the published layout (`state_dict` without `module.`,
`epoch`, `optimizer`, `scheduler`, `top1_val`, `top5_val`) and, beside it,
what resuming in the middle of an epoch needs. Reading and writing the file
is train/work_folder.py's affair.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from eval.validation import Result
from san import checkpoints, data
from san.jobs import config
from san.networks.architecture import architecture
from san.recipe import Recipe
from train import optimization
from train.meter import NO_FIGURES, Figures
from train.place import Place

# Of what settings may change between two runs of one training.
_CHANGEABLE = (
    "Data",
    "Recipe",
    "set_attention_backend",
)
# Of the recipe, what only the first step depends on.
_INITIAL = ("initial_checkpoint", "head")
_START_AGAIN = "; give another --workdir, or --resume=false to start again here"


@dataclasses.dataclass(frozen=True)
class Validation:
    """One validation, as checkpoints and the results table keep it.

    Attributes:
      epoch: epochs completed, counted from one.
      top1: percent.
      top5: percent.
      loss: mean cross-entropy.
      num_images: number of images.
    """

    epoch: int
    top1: float
    top5: float
    loss: float
    num_images: int

    @classmethod
    def of(cls, epoch: int, result: Result) -> "Validation":
        """The figures of a validation result."""
        return cls(
            epoch, result.top1, result.top5, result.loss, result.num_images
        )

    def beats(self, other: "Validation | None") -> bool:
        """Whether top-1 is higher or, at the same top-1, the loss lower."""
        if other is None:
            return True
        return (self.top1, -self.loss) > (other.top1, -other.loss)


@dataclasses.dataclass
class State:
    """How far training has come.

    Attributes:
      epoch: epochs completed, validation included.
      step: optimiser steps taken in the epoch under way.
      total_steps: optimiser steps taken in all, however many an epoch had.
      total_images: images seen in them.
      seen: training figures of the epoch under way.
      seconds: spent on training so far, over all runs.
      latest: the last validation.
      best: the best one.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    total_images: int = 0
    seen: Figures = NO_FIGURES
    seconds: float = 0.0
    latest: Validation | None = None
    best: Validation | None = None

    def take_step(self, num_images: int) -> None:
        """Counts an optimiser step and its images."""
        self.step += 1
        self.total_steps += 1
        self.total_images += num_images

    def finish_epoch(self, result: Result) -> bool:
        """Counts an epoch and its validation; returns whether it is best."""
        self.epoch += 1
        self.step = 0
        self.seen = NO_FIGURES
        self.latest = Validation.of(self.epoch, result)
        if not self.latest.beats(self.best):
            return False
        self.best = self.latest
        return True


@dataclasses.dataclass
class Run:
    """A training run: what it changes, and what fixes its course.

    Attributes:
      model: the network itself, not its wrapper for several processes.
      average: its moving average, if the recipe has one.
      optimizer: its optimiser.
      recipe: the hyperparameters.
      index: the training images.
      steps_per_epoch: optimiser steps in an epoch.
      origin: what the initial weights are of, as initial_weights.load
        says it; None for fresh ones.
    """

    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    index: data.ImageIndex
    steps_per_epoch: int
    origin: dict[str, Any] | None = None

    @property
    def result(self) -> nn.Module:
        """The network that is validated and of use to others."""
        return self.average.module if self.average else self.model

    def rate_at(self, epoch: int, step: int) -> float:
        """The learning rate of a step."""
        return optimization.learning_rate_at(
            self.recipe, epoch, step, self.steps_per_epoch
        )


def make_checkpoint(run: Run, state: State) -> dict[str, Any]:
    """The checkpoint of a run, made of tensors and plain Python values.

    Its network is the result, which its figures are of; what is trained lies
    beside it where that is another.
    """
    rate = run.rate_at(state.epoch, state.step)
    trained = {}
    if run.average:
        trained = {
            "trained_state_dict": run.model.state_dict(),
            "num_averaged": int(run.average.n_averaged),
        }
    return {
        "state_dict": run.result.state_dict(),
        **trained,
        "epoch": state.epoch,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": {
            "base_lrs": [run.recipe.base_rate],
            "last_epoch": state.epoch,
            "_last_lr": [rate],
        },
        "top1_val": state.latest and state.latest.top1,
        "top5_val": state.latest and state.latest.top5,
        "classes": list(run.index.classes),
        "num_images": len(run.index),
        "images": run.index.digest(),
        "data_dir": run.index.root,
        "architecture": architecture(run.model),
        "origin": run.origin,
        "recipe": dataclasses.asdict(run.recipe),
        "settings": config.bindings(),
        "state": dataclasses.asdict(state),
    }


def check_same_training(checkpoint: dict[str, Any], run: Run) -> None:
    """Raises ValueError if another network or other classes were trained."""
    if not {"state", "optimizer"} <= checkpoint.keys():
        raise ValueError(
            "resume: last.pth must be a checkpoint written by //train:main,"
            f" got one that holds {', '.join(map(str, checkpoint))}"
        )
    _check_same_network(_changed_settings(checkpoint))
    _check_same_classes(checkpoint["classes"], list(run.index.classes))


def is_order_lost(checkpoint: dict[str, Any], run: Run) -> bool:
    """Whether the epoch under way is of other images than there are now."""
    then = checkpoint["num_images"], _images(checkpoint, run)
    now = len(run.index), run.index.digest()
    return checkpoint["state"]["step"] > 0 and then != now


def restore(checkpoint: dict[str, Any], run: Run) -> State:
    """Puts a run where its checkpoint says it stood.

    Args:
      checkpoint: of the same training (see check_same_training), and of the
        order of images that there is now (see is_order_lost).
      run: the run, at its start.

    Raises:
      ValueError: if the weights do not fit the network or, within an epoch,
        other settings would change the order.
    """
    state = _state(checkpoint)
    if state.step:
        _check_same_order(checkpoint, run)
    _check_same_optimizer(checkpoint["recipe"], run.recipe)
    result = checkpoint["state_dict"]
    _load(run.model, checkpoint.get("trained_state_dict", result))
    if run.average:
        _load(run.average.module, result)
        run.average.n_averaged.fill_(checkpoint.get("num_averaged", 0))
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    run.origin = checkpoint.get("origin")
    return state


def _load(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    try:
        checkpoints.load_state_dict(model, state_dict, source="last.pth")
    except ValueError as error:
        raise ValueError(f"{error}{_START_AGAIN}") from error


def changed_values(
    checkpoint: dict[str, Any], run: Run
) -> dict[str, tuple[Any, Any]]:
    """What is no longer as the checkpoint has it: (old, new) by name."""
    old, new = checkpoint["recipe"], dataclasses.asdict(run.recipe)
    pairs = {
        f"Recipe.{name}": (old[name], new[name])
        for name in sorted(old.keys() & new.keys())
    }
    # Of what has no effect any more, something else is said.
    for name in _INITIAL:
        pairs.pop(f"Recipe.{name}", None)
    pairs |= {
        name: pair
        for name, pair in _changed_settings(checkpoint).items()
        if not name.startswith("Recipe.")
    }
    pairs["--data_dir"] = (checkpoint["data_dir"], run.index.root)
    pairs["number of images"] = (checkpoint["num_images"], len(run.index))
    pairs["digest of the list of images"] = (
        _images(checkpoint, run),
        run.index.digest(),
    )
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def other_origin(checkpoint: dict[str, Any], run: Run) -> str | None:
    """Which setting asks in vain for another beginning, if any."""
    for name in _INITIAL:
        old = checkpoint["recipe"].get(name, getattr(Recipe, name))
        if old != getattr(run.recipe, name):
            return f"Recipe.{name}"
    return None


def _changed_settings(
    checkpoint: dict[str, Any],
) -> dict[str, tuple[str, str]]:
    """What gin binds otherwise than it did: (old, new).

    Older checkpoints have no settings, and nothing is said of them.
    """
    return config.changed_bindings(
        checkpoint.get("settings", config.bindings())
    )


def _check_same_network(
    changed: Mapping[str, tuple[str, str]],
) -> None:
    """Raises ValueError if another network would get the weights.

    Weights of the same shapes fit networks that compute something else: other
    footprints, other relations.
    """
    for name, (old, new) in changed.items():
        if name.split(".")[0] not in _CHANGEABLE:
            _check_same(name, old, new)


def _images(checkpoint: dict[str, Any], run: Run) -> str:
    """The digest of its images; older checkpoints have none."""
    return checkpoint.get("images", run.index.digest())


def _state(checkpoint: dict[str, Any]) -> State:
    """A State from dataclasses.asdict."""
    parts = {"seen": Figures, "latest": Validation, "best": Validation}
    state = State(
        **{
            name: parts[name](**value) if name in parts and value else value
            for name, value in checkpoint["state"].items()
        }
    )
    if "total_steps" not in checkpoint["state"]:  # As in older checkpoints.
        steps = state.epoch * Place.of(checkpoint).steps_per_epoch + state.step
        state.total_steps = steps
        state.total_images = steps * checkpoint["recipe"]["batch_size"]
    return state


def _check_same_order(checkpoint: dict[str, Any], run: Run) -> None:
    """Raises ValueError unless settings give the epoch's other batches.

    Deliberate as such a change is, what it costs is left to the user.
    """
    epoch = checkpoint["epoch"]
    remedy = f"; to train epoch {epoch + 1} again, copy epoch.pth over last.pth"
    for name in ("batch_size", "seed"):
        _check_same(
            f"within an epoch, Recipe.{name}",
            checkpoint["recipe"][name],
            getattr(run.recipe, name),
            remedy if epoch else "",
        )


def _check_same_optimizer(old: dict[str, Any], new: Recipe) -> None:
    """Raises ValueError if what the optimiser keeps is of another one.

    Older checkpoints know SGD alone.
    """
    for name in ("optimizer", "decayed", "frozen_stages"):
        default = getattr(Recipe, name)
        _check_same(
            f"Recipe.{name}", old.get(name, default), getattr(new, name)
        )
    if (old.get("depth_decay", 1) == 1) != (new.depth_decay == 1):
        _check_same(
            "Recipe.depth_decay, where one of both is 1,",
            old.get("depth_decay", 1),
            new.depth_decay,
        )


def _check_same_classes(old: list[str], new: list[str]) -> None:
    _check_same("the number of classes", len(old), len(new))
    names = "the class names"
    if sorted(old) == sorted(new):
        names += " (those that are numbers are sorted by number, once as text)"
    for old_name, new_name in zip(old, new, strict=True):
        _check_same(names, old_name, new_name)


def _check_same(what: str, old: Any, new: Any, remedy: str = "") -> None:
    if old != new:
        raise ValueError(
            f"resume: {what} must be the checkpoint's, {old}, got {new}"
            f"{_START_AGAIN}{remedy}"
        )
