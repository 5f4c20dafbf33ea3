"""One evaluation: what a checkpoint says of its images, and the figures.

Flags are in imagenet.py, the loop over the images in validation.py.
"""

import dataclasses
import pathlib

from eval import real_labels, validation
from eval.loading import Trained
from eval.outcomes import Outcomes, Recorder
from san import data


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was evaluated, and what was found.

    Attributes:
      checkpoint: the file.
      epoch: epochs it was trained for, if it says so.
      name: of the network, if it has one.
      index: the images.
      settings: how they became the network's input.
      result: the figures.
      outcomes: what the network said of each image.
      about: what kind of figures they are, where they are not the usual ones.
      real: the accuracy by the ReaL labels, if it was asked for.
    """

    checkpoint: pathlib.Path
    epoch: int | None
    name: str | None
    index: data.ImageIndex
    settings: data.Data
    result: validation.Result
    outcomes: Outcomes
    about: str | None = None
    real: real_labels.Accuracy | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.index.classes


def evaluate(
    trained: Trained,
    batch_size: int | None,
    real: list[list[int]] | None = None,
) -> Evaluation:
    """Evaluates a network on its images.

    Args:
      trained: the network.
      batch_size: images at a time over all processes; None for the recipe's.
      real: the ReaL labels of ImageNet's validation images, or None.

    Raises:
      ValueError: if those are not of these images.
      FloatingPointError: if the network's logits are not finite.
    """
    labels = None
    if real is not None:
        labels = real_labels.of_images(real, trained.index)
    device = trained.process.device
    batches = trained.batches(batch_size)
    recorder = Recorder(trained.index.labels, batches.numbers, device)
    result = validation.validate(
        trained.model,
        batches,
        trained.num_classes,
        device,
        trained.recipe.precision,
        recorder,
    )
    validation.check_finite(result, trained.checkpoint)
    outcomes = recorder.outcomes()
    return Evaluation(
        trained.checkpoint,
        trained.epoch,
        trained.name,
        trained.index,
        trained.settings,
        result,
        outcomes,
        trained.about,
        None if labels is None else labels.accuracy(outcomes.predicted),
    )
