"""A run as its work folder tells of it, finished or not."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from san import checkpoints
from san.jobs import config
from train import metrics
from train.work_folder import WorkFolder


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
      name: by which it is told from the others.
      settings: the text of every value that is known, by name.
      chosen: names of those that are no defaults, of the recipe all.
      epochs: how many it is to have, or None.
      seconds: spent on training.
      lines: of metrics.jsonl.
      validations: figures of each that is known, by epoch.
    """

    name: str
    settings: dict[str, str]
    chosen: set[str]
    epochs: int | None
    seconds: float
    lines: list[dict[str, Any]]
    validations: dict[int, dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """Its validation with the highest top-1, then the lowest loss."""
        return max(
            self.validations.values(),
            key=lambda one: (one["top1"], -one["loss"]),
            default=None,
        )

    @property
    def last(self) -> dict[str, Any] | None:
        """Its last validation."""
        return self.validations.get(max(self.validations, default=0))

    def curve(self, kind: str, name: str) -> tuple[list[float], list[float]]:
        """Epochs, and a figure at each of them, where there is one."""
        own = [line for line in self.lines if line.get("kind") == kind]
        points = [
            (line["epochs_trained"], line[name])
            for line in own
            if _are_numbers(line, "epochs_trained", name)
        ]
        return [x for x, _ in points], [y for _, y in points]


def read_all(folders: Sequence[pathlib.Path]) -> list[Run]:
    """Reads runs, of which each gets a name of its own.

    Raises:
      ValueError: if a folder is no work folder.
    """
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else map(str, folders)
    found = [_read(*pair) for pair in zip(folders, names, strict=True)]
    config.parse([])  # What the last one says is not said of what follows.
    return found


def _read(path: pathlib.Path, name: str) -> Run:
    folder = WorkFolder(path)
    sources = (folder.config, folder.metrics, folder.last)
    if not any(source.is_file() for source in sources):
        raise ValueError(
            "compare_runs: each argument must be a work folder of //train:main,"
            f" got {path}, which"
            + (
                " holds neither config.gin nor metrics.jsonl nor a checkpoint"
                if path.is_dir()
                else " is no folder"
            )
        )
    checkpoint = _checkpoint(folder)
    lines = metrics.read(folder.metrics) if folder.metrics.is_file() else []
    chosen = _bound(folder.config) | _saved_settings(checkpoint)
    state, recipe = checkpoint.get("state", {}), checkpoint.get("recipe", {})
    return Run(
        name,
        _bound(folder.operative) | chosen,
        set(chosen),
        recipe.get("epochs"),
        max(
            [
                state.get("seconds", 0.0),
                *(
                    line["seconds"]
                    for line in lines
                    if _are_numbers(line, "seconds")
                ),
            ]
        ),
        lines,
        _validations(lines, state),
    )


def _checkpoint(folder: WorkFolder) -> dict[str, Any]:
    """The last checkpoint; empty where there is none of training."""
    if not folder.last.is_file():
        return {}
    try:
        return checkpoints.read_checkpoint(folder.last)
    except ValueError as error:
        print(f"warning: {error}", file=sys.stderr)
        return {}


def _bound(gin_file: pathlib.Path) -> dict[str, str]:
    """What a gin file binds; nothing if there is none yet."""
    if not gin_file.is_file():
        return {}
    try:
        config.parse([str(gin_file)])
    except ValueError as error:
        print(f"warning: settings are left out: {error}", file=sys.stderr)
        return {}
    return config.bindings()


def _saved_settings(checkpoint: dict[str, Any]) -> dict[str, str]:
    """The settings that a checkpoint was trained with, and its images."""
    recipe = {
        f"Recipe.{name}": repr(value)
        for name, value in checkpoint.get("recipe", {}).items()
    }
    titles = {
        "data_dir": "--data_dir",
        "num_images": "number of images",
        "images": "digest of the list of images",
    }
    images = {
        title: str(checkpoint[name])
        for name, title in titles.items()
        if name in checkpoint
    }
    return checkpoint.get("settings", {}) | recipe | images


def _validations(
    lines: Sequence[dict[str, Any]], state: dict[str, Any]
) -> dict[int, dict[str, Any]]:
    """Those of the lines, and those that only the checkpoint knows."""
    known = [line for line in lines if line.get("kind") == "validation"]
    kept = [state[name] for name in ("best", "latest") if state.get(name)]
    return {
        one["epoch"]: one
        for one in (*kept, *known)
        if _are_numbers(one, "epoch", "top1", "top5", "loss")
    }


def _are_numbers(figures: dict[str, Any], *names: str) -> bool:
    """Whether all are there; what is not finite is null in metrics.jsonl."""
    return all(isinstance(figures.get(name), int | float) for name in names)
