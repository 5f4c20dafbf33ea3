"""What one run of an ablation needs, and how far it is.

A run that is there already must have been made with the settings asked for:
figures of different settings do not belong into one table.
"""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from san import data
from san.jobs import config
from san.recipe import Recipe
from train.checkpointing import Validation
from train.data_folder import source
from train.sweep.plan import Run
from train.work_folder import WorkFolder

_MAX_DIFFERENCES = 3

# What distinguishes the runs, and the flag that it follows from.
_SAID_BY = {
    "create_model.name": "--table",
    "Recipe.seed": "--seeds",
    "digits.fold": "--folds",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all runs have in common.

    Attributes:
      gin_files: configuration files.
      gin_params: single settings.
      data_dir: the folder of images; None for a config that brings its own.
      workdir: the ablation's work folder.
    """

    gin_files: Sequence[str]
    gin_params: Sequence[str]
    data_dir: str | None
    workdir: pathlib.Path

    def has_folds(self) -> bool:
        """Whether the images are the digits, which come in folds.

        Raises:
          ValueError: if a setting is wrong, or is what tells runs apart, or
            the folder of images is none.
        """
        config.parse(self.gin_files, self.gin_params)
        for name, flag in _SAID_BY.items():
            if name in config.bindings():
                raise ValueError(
                    f"ablation: {name} must not be bound, {flag} says it"
                )
        Recipe()
        if self.data_dir and not os.path.isdir(self.data_dir):
            raise ValueError(
                "ablation: --data_dir must be a folder of images, got"
                f" {self.data_dir}"
            )
        return self.data_dir is None and data.Data().source is data.write_digits


@dataclasses.dataclass(frozen=True)
class Job:
    """A run with all that it needs.

    Attributes:
      run: which it is.
      folder: its work folder.
      arguments: of //train:main.
      epochs: epochs to train.
    """

    run: Run
    folder: WorkFolder
    arguments: Sequence[str]
    epochs: int

    @property
    def log(self) -> pathlib.Path:
        """The file that the run's messages go to."""
        return self.folder.path / "log.txt"

    def finished(self) -> Validation | None:
        """The last epoch's validation; None if there is more to train."""
        checkpoint = _checkpoint(self.folder)
        if checkpoint is None or checkpoint["epoch"] < self.epochs:
            return None
        return Validation(**checkpoint["state"]["latest"])


def prepare(settings: Settings, run: Run) -> Job:
    """Reads a run's settings and has its images made, once per fold.

    Raises:
      ValueError: if a setting is wrong, or the run's work folder was made
        with others.
      OSError: if the images cannot be written.
    """
    params = [*settings.gin_params, *run.bindings]
    config.parse(settings.gin_files, params)
    images = settings.workdir / "data"
    data_dir = source(settings.data_dir)(str(images))
    folder = WorkFolder(settings.workdir / run.folder)
    _check_same_settings(folder, os.path.abspath(data_dir))
    arguments = [
        *(f"--gin_file={name}" for name in settings.gin_files),
        *(f"--gin_param={param}" for param in params),
        f"--data_dir={data_dir}",
        f"--workdir={folder.path}",
    ]
    return Job(run, folder, arguments, Recipe().epochs)


def _check_same_settings(folder: WorkFolder, data_dir: str) -> None:
    """Raises ValueError if something was trained with other settings."""
    if not (folder.last.exists() and folder.config.exists()):
        return
    old = folder.config.read_text().splitlines()
    new = config.resolved_text().splitlines()
    changed = [
        line
        for line in difflib.ndiff(old, new)
        if line[0] in "-+" and line[2:].strip() and line[2] != "#"
    ]
    if _images_of(folder) not in (None, data_dir):
        changed += [f"- {_images_of(folder)}", f"+ {data_dir}"]
    if changed:
        raise ValueError(
            "ablation: --workdir must hold runs with the settings asked for,"
            f" got {folder.path} with others ({_listed(changed)}); give"
            " another --workdir, or remove that folder to train it again"
        )


def _images_of(folder: WorkFolder) -> str | None:
    """The folder of images that a run was trained on."""
    checkpoint = _checkpoint(folder)
    return checkpoint["data_dir"] if checkpoint else None


def _checkpoint(folder: WorkFolder) -> dict[str, Any] | None:
    """What there is of a run; None also where it cannot be read."""
    try:
        return folder.load()
    except (ValueError, OSError):
        return None  # The run itself will say what is wrong.


def _listed(changed: Sequence[str]) -> str:
    """The first lines that differ: there "-", now "+"."""
    more = len(changed) - _MAX_DIFFERENCES
    return "; ".join(changed[:_MAX_DIFFERENCES]) + (
        f"; and {more} more lines" if more > 0 else ""
    )
