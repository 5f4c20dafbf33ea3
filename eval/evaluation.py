"""One evaluation: top-1, top-5 and loss of a checkpoint on its images.

Flags are in imagenet.py, the loop over the images in validation.py.
"""

import dataclasses
import pathlib

from eval import loading, validation
from san.jobs import processes


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
    with loading.load(path, workdir, data_dir, process) as trained:
        result = validation.validate(
            trained.model,
            trained.batches(batch_size),
            trained.num_classes,
            process.device,
            trained.recipe.precision,
        )
    return Evaluation(path, trained.epoch, trained.index.classes, result)
