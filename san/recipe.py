"""The training recipe: every hyperparameter, with its published default.

Holds values and checks them. What is done with them lies in train/
(learning rate, loss, mixup), san/jobs/precision.py and san/norms.py.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gin

SCHEDULES = ("cosine", "step")
PRECISIONS = ("float32", "bfloat16")


@gin.configurable(module="san")
@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the ImageNet recipe.

    Source: the published implementation of "Exploring Self-attention for
    Image Recognition" (CVPR 2020), section 4.1 and its config files. Mixup,
    warm-up and bfloat16 are off there.

    Attributes:
      epochs: passes over the training images.
      batch_size: images per optimiser step, over all processes together.
      accumulation: parts that a process's images of a step are computed in,
        one after the other, where all do not fit in memory. The gradient is
        that of the whole; batch statistics are those of a part.
      learning_rate: the rate before the schedule's factor.
      schedule: "cosine" falls to zero over the epochs; "step" multiplies by
        `step_factor` at each of `step_epochs`. Both change once per epoch.
      step_epochs: epochs, counted from zero, that begin with a lower rate.
      step_factor: what the step schedule multiplies the rate by.
      warmup_epochs: first epochs, in which the rate rises linearly.
      momentum: of SGD.
      weight_decay: of SGD, on every parameter.
      label_smoothing: probability taken from the target class and shared
        by the other classes.
      mixup_alpha: mixup draws from Beta(alpha, alpha); 0 is no mixup.
      seed: of the initial weights, the order of images and their crops.
      precision: "float32", or "bfloat16" for autocast to it.
      sync_batch_norm: statistics over the images of all processes.
      log_every_steps: steps between two logs of the loss.
      save_every_steps: steps between two checkpoints within an epoch; 0
        saves at the end of each epoch only.
    """

    epochs: int = 100
    batch_size: int = 256
    accumulation: int = 1
    learning_rate: float = 0.1
    schedule: str = "cosine"
    step_epochs: tuple[int, ...] = (30, 60, 90)
    step_factor: float = 0.1
    warmup_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.0
    seed: int = 0
    precision: str = "float32"
    sync_batch_norm: bool = True
    log_every_steps: int = 10
    save_every_steps: int = 1000

    def __post_init__(self) -> None:
        """Checks every value.

        Raises:
          ValueError: naming the first value that is not allowed.
        """
        for name in (
            "epochs",
            "batch_size",
            "accumulation",
            "log_every_steps",
        ):
            self._check_integer(name, 1)
        for name in ("warmup_epochs", "save_every_steps", "seed"):
            self._check_integer(name, 0)
        self._check("seed", "be below 2**63", self.seed < 2**63)
        self._check_number("learning_rate", "be above 0", lambda x: x > 0)
        self._check_number("mixup_alpha", "be at least 0", lambda x: x >= 0)
        self._check_number("weight_decay", "be at least 0", lambda x: x >= 0)
        for name in ("momentum", "label_smoothing"):
            self._check_number(
                name, "be at least 0 and below 1", lambda x: 0 <= x < 1
            )
        self._check_number(
            "step_factor", "be above 0 and at most 1", lambda x: 0 < x <= 1
        )
        self._check(
            "warmup_epochs",
            f"be below epochs ({self.epochs})",
            self.warmup_epochs < self.epochs,
        )
        self._check_step_epochs()
        self._check_choice("schedule", SCHEDULES)
        self._check_choice("precision", PRECISIONS)
        self._check(
            "sync_batch_norm",
            "be True or False",
            isinstance(self.sync_batch_norm, bool),
        )

    def _check(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise ValueError(
                f"Recipe: {name} must {rule}, got {getattr(self, name)!r}"
            )

    def _check_integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        self._check(
            name,
            f"be an integer of at least {least}",
            _is_integer(value) and value >= least,
        )

    def _check_number(
        self, name: str, rule: str, holds: Callable[[Any], bool]
    ) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        self._check(
            name,
            f"be a number and {rule}",
            number and math.isfinite(value) and holds(value),
        )

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        rule = "be one of " + ", ".join(repr(choice) for choice in choices)
        self._check(name, rule, getattr(self, name) in choices)

    def _check_step_epochs(self) -> None:
        epochs = self.step_epochs
        self._check(
            "step_epochs",
            "be a tuple of rising epochs above 0",
            isinstance(epochs, tuple | list)
            and all(_is_integer(epoch) and epoch > 0 for epoch in epochs)
            and list(epochs) == sorted(set(epochs)),
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
