"""How far a checkpoint has come, and how much lies between two of them."""

import dataclasses
from typing import Any, Self


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A place in training; the later one is the greater.

    Attributes:
      epoch: epochs completed.
      step: steps taken in the epoch under way.
      steps_per_epoch: the number of them.
    """

    epoch: int
    step: int
    steps_per_epoch: int = dataclasses.field(compare=False)

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> Self:
        """Where a checkpoint stands.

        Raises:
          ValueError: if it was not written by //train:main.
        """
        try:
            steps = (
                checkpoint["num_images"] // checkpoint["recipe"]["batch_size"]
            )
            state = checkpoint["state"]
            return cls(int(state["epoch"]), int(state["step"]), steps)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                "resume: checkpoint must be one of //train:main, got one that"
                f" holds {', '.join(map(str, checkpoint))}"
            ) from error

    def __str__(self) -> str:
        return f"{_count(self.epoch, 'epoch')} and {_count(self.step, 'step')}"

    def since(self, earlier: Self) -> str:
        """What was trained between another place and this one, in words."""
        epochs, steps = self.epoch - earlier.epoch, self.step - earlier.step
        if steps < 0:
            epochs, steps = epochs - 1, steps + earlier.steps_per_epoch
        if not epochs:
            return _count(steps, "step")
        return f"{_count(epochs, 'epoch')} and {_count(steps, 'step')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
