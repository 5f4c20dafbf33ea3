"""A trained network and the validation images it belongs to.

Flags are in command_line.py; what is measured is in the files beside.
"""

import contextlib
import dataclasses
import numbers
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import san
from eval import class_order
from san import checkpoints, data
from san.jobs import config, network, processes
from san.networks import pretrained
from san.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network without images.

    Attributes:
      checkpoint: all that the file holds.
      model: on the CPU, in training mode.
      name: as san.jobs.network.network_name says it.
      num_classes: length of its output.
    """

    checkpoint: dict[str, Any]
    model: nn.Module
    name: str | None
    num_classes: int

    @property
    def classes(self) -> list[str] | None:
        """Names of its outputs; None if the checkpoint has none."""
        return class_order.class_names(self.checkpoint, self.num_classes)

    @property
    def epoch(self) -> int | None:
        """Epochs that it was trained for, if that is a number."""
        epoch = self.checkpoint.get("epoch")
        return int(epoch) if isinstance(epoch, numbers.Integral) else None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network beside its validation images.

    Attributes:
      checkpoint: the file.
      epoch: epochs it was trained for, if it says so.
      name: of the network, as san.jobs.network.network_name says it.
      model: on the device of `process`.
      index: the images to evaluate on.
      numbers: of these images in the validation set, int64 [n].
      settings: how they become the network's input.
      recipe: batch size and precision.
      process: this process.
      about: what kind of figure comes of them, where it is not the usual one.
    """

    checkpoint: pathlib.Path
    epoch: int | None
    name: str | None
    model: nn.Module
    index: data.ImageIndex
    numbers: np.ndarray
    settings: data.Data
    recipe: Recipe
    process: processes.Process
    about: str | None = None

    @property
    def num_classes(self) -> int:
        """Length of the network's output."""
        return len(self.index.classes)

    def batches(self, batch_size: int | None) -> data.ValidationLoader:
        """This process's images.

        Args:
          batch_size: images at a time over all processes; None for the
            recipe's.
        """
        size = batch_size or self.recipe.batch_size
        return data.ValidationLoader(
            self.index,
            self.settings,
            batch_size=-(-size // self.process.world_size),
            rank=self.process.rank,
            world_size=self.process.world_size,
            device=self.process.device,
        )


@contextlib.contextmanager
def load(
    path: pathlib.Path,
    workdir: pathlib.Path | None,
    data_dir: str | None,
    process: processes.Process,
    num_images: int | None = None,
) -> Iterator[Trained]:
    """Loads a checkpoint of the configured network.

    Args:
      path: the checkpoint, our own or a published one.
      workdir: the work folder it lies in, if any.
      data_dir: the folder of images; None for the one it was trained on.
      process: this process.
      num_images: how many images to take, evenly from all; None for all.

    Yields:
      The network; its images are there until the end.

    Raises:
      ValueError: if checkpoint, network and images do not fit together.
    """
    found = read_network(path, workdir, say=process.is_first)
    recipe = Recipe()
    network.try_network()
    with contextlib.ExitStack() as stack:
        root = data_dir or _data_dir(found.checkpoint, workdir, stack)
        index = _load_images(root, workdir)
        index = class_order.in_checkpoint_order(
            found.checkpoint, found.num_classes, index, say=process.is_first
        )
        numbers = _evenly(len(index), num_images)
        yield Trained(
            path,
            found.epoch,
            found.name,
            found.model.to(process.device),
            index.part(numbers),
            numbers,
            data.Data(),
            recipe,
            process,
        )


def read_network(
    path: pathlib.Path, workdir: pathlib.Path | None, *, say: bool = True
) -> Network:
    """Reads a checkpoint of the configured network.

    The attention backend is the configured one from now on.

    Args:
      path: the checkpoint, our own or a published one.
      workdir: the work folder it lies in, if any.
      say: warn on stderr of settings that are not those of its training.

    Raises:
      ValueError: if checkpoint and network do not fit together, or a weight
        is not finite.
    """
    checkpoint = _read(path, workdir)
    state_dict = checkpoints.state_dict_of(checkpoint, path)
    num_classes = _num_classes(state_dict, path)
    model = san.create_model(num_classes=num_classes)
    pretrained.load(model, checkpoint, path)
    _check_finite(model, path)
    if say:
        _announce_changes(checkpoint)
    san.set_attention_backend()  # The configured one.
    return Network(checkpoint, model, network.network_name(), num_classes)


def _read(path: pathlib.Path, workdir: pathlib.Path | None) -> dict[str, Any]:
    """Reads a checkpoint; of a damaged one says what is whole beside it."""
    try:
        return checkpoints.read_checkpoint(path)
    except ValueError as error:
        whole = [] if workdir is None else _whole_ones(path.parent)
        if not whole:
            raise
        raise ValueError(
            f"{error}; {', '.join(whole)} can be evaluated instead, by"
            f" --gin_file={workdir}/config.gin --checkpoint={path.parent}/"
            f"{whole[0]}"
        ) from error


def _whole_ones(folder: pathlib.Path) -> list[str]:
    """Names of the checkpoints in a folder that can be read."""
    whole = []
    for path in sorted(folder.glob("*.pth")):
        with contextlib.suppress(ValueError, OSError):
            checkpoints.read_checkpoint(path)
            whole.append(path.name)
    return whole


def trained_settings(checkpoint: dict[str, Any]) -> dict[str, str]:
    """What was bound in training, as config.bindings has it.

    What is bound now where the checkpoint is older, or of another tool, which
    has settings of its own.
    """
    now = config.bindings()
    entries = (checkpoint.get("recipe"), checkpoint.get("state"))
    settings = checkpoint.get("settings", now)
    is_ours = all(isinstance(entry, dict) for entry in (*entries, settings))
    return settings if is_ours else now


def _announce_changes(checkpoint: dict[str, Any]) -> None:
    """Says which settings are not those that the network was trained with."""
    settings = trained_settings(checkpoint)
    for name, (old, new) in config.changed_bindings(settings).items():
        if not name.startswith("Recipe."):
            print(
                f"warning: {name} is {new}; the network was trained with {old}",
                file=sys.stderr,
            )


def _load_images(root: str, workdir: pathlib.Path | None) -> data.ImageIndex:
    cache = str(workdir / "cache") if workdir else None
    return processes.on_first_process(
        lambda: data.load_split(
            root, "val", cache_dir=cache, exclude=data.Data().exclude
        )
    )


def _evenly(total: int, num_images: int | None) -> np.ndarray:
    """Which images of all to take: the same part of every class."""
    count = total if num_images is None else num_images
    if count > total:
        raise ValueError(
            "eval: --num_images must be at most the number of validation"
            f" images ({total}), got {count}"
        )
    return np.arange(count) * total // count


def _num_classes(
    state_dict: dict[str, torch.Tensor], path: pathlib.Path
) -> int:
    weight = state_dict.get("fc.weight")
    if weight is None or weight.dim() != 2:
        got = "none" if weight is None else f"shape {list(weight.shape)}"
        raise ValueError(
            "eval: the checkpoint must hold the matrix fc.weight, from which"
            f" the number of classes is read, got {got} in {path}"
        )
    return weight.shape[0]


def _check_finite(model: nn.Module, path: pathlib.Path) -> None:
    """A weight that is no number leaves figures, which mean nothing."""
    others = [
        name
        for name, tensor in model.state_dict().items()
        if not tensor.isfinite().all()
    ]
    if others:
        raise ValueError(
            "eval: the checkpoint's weights must be finite, got NaN or infinity"
            f" in {data.first_few(others)} in {path}"
        )


def _makes_others(checkpoint: dict[str, Any]) -> bool:
    """Whether the source that trained it is told to make other images."""
    settings = trained_settings(checkpoint)
    return "Data.source" in settings and any(
        name.startswith(("digits.", "write_digits."))
        for name in config.changed_bindings(settings)
    )


def _data_dir(
    checkpoint: dict[str, Any],
    workdir: pathlib.Path | None,
    stack: contextlib.ExitStack,
) -> str:
    """The images to evaluate on where no folder was named."""
    recorded = checkpoint.get("data_dir")
    source = data.Data().source
    if isinstance(recorded, str) and os.path.isdir(recorded):
        if not (source and _makes_others(checkpoint)):
            return recorded
    if source:
        return processes.on_first_process(
            lambda: source(
                str(workdir)
                if workdir
                else stack.enter_context(tempfile.TemporaryDirectory())
            )
        )
    got = f"one trained on {recorded}, which is gone" if recorded else "none"
    raise ValueError(
        "eval: --data_dir must name a folder with val/CLASS/* images,"
        f" got {got}"
    )
