"""What runs of ours have measured, from their work folders.

A work folder is what //train:main makes; //train:ablation makes one for each
of its runs. The figure of a run is that of its last epoch: the best epoch's
would be chosen on the images that it is measured on.
"""

import dataclasses
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import gin

import san
from san import checkpoints
from san.jobs import config
from san.networks.bindings import bound, is_bound
from san.networks.row_networks import STRUCTURE, RowNetwork

# Of the digits, which every run may have written for itself.
_FOLD = re.compile(r"_fold\d+$")
_OWN_IMAGES = "digits_"
# Settings in which runs of a row may differ.
_OF_A_RUN = ("create_model.name", "Recipe.seed", "digits.fold")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training run of a row's network.

    Attributes:
      folder: its work folder.
      row: of the paper; the one of table 3 for "san10_pair" and the like.
      data: name of the data set, folds left out.
      fold: the folder of images; of the digits its name.
      seed: the recipe's.
      size: what it says of RowSize, or "" for the paper's size.
      epochs: it was trained for.
      settings: everything else that gin was told.
      top1: percent, after the last epoch.
      top5: likewise.
      num_images: it was validated on.
    """

    folder: pathlib.Path
    row: str
    data: str
    fold: str
    seed: int
    size: str
    epochs: int
    settings: frozenset[tuple[str, str]]
    top1: float
    top5: float
    num_images: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """The runs of one row together.

    Attributes:
      top1: percent, mean over the runs.
      top5: likewise.
      num_images: different images of the validation, over all folds.
      data: name of the data set.
      epochs: each run was trained for.
      size: what the runs say of RowSize, or "" for the paper's size.
      runs: how many.
    """

    top1: float
    top5: float
    num_images: int
    data: str
    epochs: int
    size: str
    runs: int

    def as_text(self) -> str:
        """On what, for people."""
        runs = f", {self.runs} runs" if self.runs > 1 else ""
        size = f", {self.size}" if self.size else ""
        return (
            f"{self.data}, {self.num_images} images, {self.epochs}"
            f" epochs{runs}{size}"
        )


def find_runs(folder: pathlib.Path) -> list[Run]:
    """The finished runs of rows in a folder and the folders below it.

    What is no such run is named on stderr, with the reason, whatever it is.

    Raises:
      ValueError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"paper_tables: --runs must be an existing folder, got {folder}"
        )
    runs = []
    for path in sorted(folder.rglob("config.gin")):
        try:
            runs.append(_read(path.parent))
        except (ValueError, OSError) as error:
            print(f"left out: {path.parent}: {error}", file=sys.stderr)
        except (KeyError, TypeError, AttributeError) as error:
            print(
                f"left out: {path.parent}: last.pth is not of //train:main"
                f" ({type(error).__name__}: {error})",
                file=sys.stderr,
            )
    config.parse([])  # What the last one says is not said of what follows.
    return runs


def measured(row: san.PaperRow, runs: Sequence[Run]) -> Measured | None:
    """What was measured of a row, or else of another row of its network.

    Raises:
      ValueError: if its runs have not the same settings, or one is there
        twice.
    """
    own = [run for run in runs if run.row == row.row]
    network = RowNetwork.of(row.row)
    found = own or [
        run
        for run in runs
        if RowNetwork.of(run.row) == network
        and not (network.has_own_size and run.size)
    ]
    if not found:
        return None
    first = found[0]
    for run in found:
        if _conditions(run) != _conditions(first):
            raise ValueError(
                f"paper_tables: --runs must have runs of {row.row} on the same"
                f" data, of the same size and length, got {first.folder}"
                f" ({_conditions(first)}) and {run.folder}"
                f" ({_conditions(run)})"
            )
        if run.settings != first.settings:
            names = sorted(dict(run.settings ^ first.settings))
            raise ValueError(
                f"paper_tables: --runs must have runs of {row.row} with the"
                f" same settings, got {first.folder} and {run.folder} with"
                f" other {', '.join(names)}"
            )
    _check_that_none_is_there_twice(found)
    images = {run.fold: run.num_images for run in found}
    weights = [run.num_images for run in found]
    return Measured(
        statistics.fmean([run.top1 for run in found], weights),
        statistics.fmean([run.top5 for run in found], weights),
        sum(images.values()),
        first.data,
        first.epochs,
        first.size,
        len(found),
    )


def _check_that_none_is_there_twice(found: Sequence[Run]) -> None:
    seen: dict[Any, Run] = {}
    for run in found:
        other = seen.setdefault((run.row, run.seed, run.fold), run)
        if other is not run:
            raise ValueError(
                f"paper_tables: --runs must have a run once, got {run.row} with"
                f" seed {run.seed} in {other.folder} and {run.folder}"
            )


def _conditions(run: Run) -> str:
    size = f", {run.size}" if run.size else ""
    images = _FOLD.sub(" in folds", run.fold)
    return f"{images}, {run.epochs} epochs{size}"


def _read(folder: pathlib.Path) -> Run:
    config.parse([str(folder / "config.gin")])
    row = _row()
    checkpoint = checkpoints.read_checkpoint(folder / "checkpoints/last.pth")
    epochs, latest = _last_epoch(checkpoint)
    fold = checkpoint["data_dir"]
    name = pathlib.PurePath(fold).name
    if name.startswith(_OWN_IMAGES):
        fold = name
    top1, top5 = float(latest["top1"]), float(latest["top5"])
    if not (math.isfinite(top1) and math.isfinite(top5)):
        raise ValueError(f"top-1 is {top1}, top-5 {top5}")
    return Run(
        folder,
        row,
        _FOLD.sub("", name),
        fold,
        checkpoint["recipe"]["seed"],
        _size(row),
        epochs,
        frozenset(
            (name, text)
            for name, text in config.bindings().items()
            if name not in _OF_A_RUN
        ),
        top1,
        top5,
        int(latest["num_images"]),
    )


def _last_epoch(checkpoint: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The number of epochs, and what the last one was validated to."""
    if not {"state", "recipe", "data_dir"} <= checkpoint.keys():
        raise ValueError("last.pth is not of //train:main")
    done, all_epochs = (
        checkpoint["state"]["epoch"],
        checkpoint["recipe"]["epochs"],
    )
    if done < all_epochs:
        raise ValueError(f"{done} of {all_epochs} epochs are done")
    return done, checkpoint["state"]["latest"]


def _row() -> str:
    """The row of what is configured."""
    name = str(gin.query_parameter("create_model.name"))
    rows = _names()
    changed = bound(STRUCTURE)
    if name not in rows or changed:
        named = f" with {', '.join(changed)}" if changed else ""
        raise ValueError(f"no row of the paper is {name}{named}")
    return rows[name]


def _names() -> dict[str, str]:
    """Rows by every name that create_model knows them by."""
    names = {}
    for row in san.paper_rows():
        names[row.row] = row.row
        if row.model:
            names[row.model] = names[f"{row.model}wise"] = row.row
    return names


def _size(row: str) -> str:
    """What is configured of the size that a row has."""
    sizes = [
        f"{size} = {gin.query_parameter(f'RowSize.{size}')}"
        for size in RowNetwork.of(row).sizes
        if is_bound(f"RowSize.{size}")
    ]
    return f"RowSize: {', '.join(sizes)}" if sizes else ""
