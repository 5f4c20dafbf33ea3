"""One evaluation: a checkpoint, the network it belongs to, and its images.

Flags are in imagenet.py, the loop over the images in validation.py.
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import torch

import san
from eval import validation
from san import checkpoints, data
from san.jobs import network, processes
from san.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was evaluated, and what was found.

    Attributes:
      checkpoint: the file.
      epoch: epochs it was trained for, if it says so.
      classes: names of the classes.
      result: the figures.
    """

    checkpoint: pathlib.Path
    epoch: int | None
    classes: list[str]
    result: validation.Result


def evaluate(
    path: pathlib.Path,
    workdir: pathlib.Path | None,
    data_dir: str | None,
    batch_size: int | None,
    process: processes.Process,
) -> Evaluation:
    """Evaluates a checkpoint of the configured network.

    Args:
      path: the checkpoint, our own or a published one.
      workdir: the work folder it lies in, if any.
      data_dir: the folder of images; None for the one it was trained on.
      batch_size: images at a time over all processes; None for the recipe's.
      process: this process.

    Raises:
      ValueError: if checkpoint, network and images do not fit together.
    """
    checkpoint = checkpoints.read_checkpoint(path)
    state_dict = checkpoints.read_state_dict(path)
    num_classes = _num_classes(state_dict, path)
    model = san.create_model(num_classes=num_classes)
    checkpoints.load_state_dict(model, state_dict, source=str(path))
    recipe = Recipe()
    san.set_attention_backend()  # The configured one.
    network.try_network()
    with contextlib.ExitStack() as stack:
        root = data_dir or _data_dir(checkpoint, workdir, stack)
        index = _load_images(root, workdir)
        _check_classes(checkpoint, num_classes, index)
        result = validation.validate(
            model.to(process.device),
            _batches(index, batch_size or recipe.batch_size, process),
            num_classes,
            process.device,
            recipe.precision,
        )
    return Evaluation(path, checkpoint.get("epoch"), index.classes, result)


def _load_images(root: str, workdir: pathlib.Path | None) -> data.ImageIndex:
    cache = str(workdir / "cache") if workdir else None
    return processes.on_first_process(
        lambda: data.load_split(root, "val", cache_dir=cache)
    )


def _batches(
    index: data.ImageIndex, batch_size: int, process: processes.Process
) -> data.ValidationLoader:
    return data.ValidationLoader(
        index,
        data.Data(),
        batch_size=-(-batch_size // process.world_size),
        rank=process.rank,
        world_size=process.world_size,
        device=process.device,
    )


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


def _data_dir(
    checkpoint: dict[str, Any],
    workdir: pathlib.Path | None,
    stack: contextlib.ExitStack,
) -> str:
    """The images to evaluate on where no folder was named."""
    recorded = checkpoint.get("data_dir")
    if isinstance(recorded, str) and os.path.isdir(recorded):
        return recorded
    source = data.Data().source
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


def _check_classes(
    checkpoint: dict[str, Any], num_classes: int, index: data.ImageIndex
) -> None:
    """Raises ValueError unless the network's outputs are the data's classes."""
    if num_classes != len(index.classes):
        raise ValueError(
            f"eval: data folder must hold the network's {num_classes} classes,"
            f" got {len(index.classes)} class folders in {index.root}/val"
        )
    trained = checkpoint.get("classes", index.classes)
    if len(trained) != num_classes:
        raise ValueError(
            f"eval: the checkpoint must name its {num_classes} classes, got"
            f" {len(trained)} names"
        )
    for label, (name, folder) in enumerate(
        zip(trained, index.classes, strict=True)
    ):
        if name != folder:
            raise ValueError(
                "eval: data folder must hold the classes that the network was"
                f" trained on, got {folder!r} in place of {name!r} as class"
                f" {label} in {index.root}/val"
            )
