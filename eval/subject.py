"""A network that was tried, as text and as JSON."""

import dataclasses
import pathlib
from typing import Any

from eval.loading import Trained


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a report says of the network it is about.

    Attributes:
      label: what people call it.
      checkpoint: the file.
      epoch: epochs it was trained for, if it says so.
      network: its name, in san.list_models() or of a row of the paper.
      num_images: it was tried on.
      num_classes: it tells apart.
    """

    label: str
    checkpoint: pathlib.Path
    epoch: int | None
    network: str | None
    num_images: int
    num_classes: int

    @classmethod
    def of(cls, label: str, trained: Trained) -> "Subject":
        """What is to be said of a trained network."""
        return cls(
            label,
            trained.checkpoint,
            trained.epoch,
            trained.name,
            len(trained.index),
            trained.num_classes,
        )

    def as_text(self) -> str:
        """A line for people."""
        epoch = "" if self.epoch is None else f" (epoch {self.epoch})"
        name = f"{self.network}, " if self.network else ""
        return (
            f"{self.checkpoint}{epoch}: {name}{self.num_images} images of"
            f" {self.num_classes} classes"
        )

    def as_json(self) -> dict[str, Any]:
        """The same as entries of a JSON object."""
        return {
            **dataclasses.asdict(self),
            "checkpoint": str(self.checkpoint),
        }
