"""The training recipe: every hyperparameter, with its published default.

Holds values and checks them. What is done with them lies in train/
(optimization.py, stages.py, initial_weights.py, losses.py, mixing.py,
averaging.py), in san/networks/stochastic_depth.py, san/jobs/precision.py and
san/norms.py. What is done to the images is san/data/settings.py's affair.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gin

SCHEDULES = ("cosine", "step")
INTERVALS = ("epoch", "step")
OPTIMIZERS = ("sgd", "adamw")
DECAYED = ("all", "matrices")
HEADS = ("by_classes", "new", "kept")
LOSSES = ("cross_entropy", "binary_cross_entropy")
PRECISIONS = ("float32", "bfloat16")


@gin.configurable(module="san")
@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the ImageNet recipe.

    Source: the published implementation of "Exploring Self-attention for
    Image Recognition" (CVPR 2020), section 4.1 and its config files. What it
    does not have is off: warm-up, AdamW, clipping, averaging, mixup, CutMix,
    stochastic depth, bfloat16, torch.compile. Whatever is drawn is a function
    of the seed, the epoch, the step and the image's place in the batch.

    Attributes:
      epochs: passes over the training images.
      batch_size: images per optimiser step, over all processes together.
      accumulation: parts that a process's images of a step are computed in,
        one after the other, where all do not fit in memory. The gradient is
        that of the whole; batch statistics are those of a part.
      optimizer: "sgd" with momentum, or "adamw" (ICLR 2019).
      learning_rate: the rate before the schedule's factor.
      reference_batch_size: None, or the batch size that learning_rate is
        meant for: it is then multiplied by batch_size / this.
      schedule: "cosine" falls to zero over the epochs; "step" multiplies by
        `step_factor` at each of `step_epochs`.
      schedule_interval: after what the rate changes: every "epoch", as
        published, or every "step".
      step_epochs: epochs, counted from zero, that begin with a lower rate.
      step_factor: what the step schedule multiplies the rate by.
      warmup_epochs: first epochs, in which the rate rises linearly.
      momentum: of SGD.
      betas: of AdamW, of its mean and of its mean square.
      weight_decay: of either optimiser.
      decayed: parameters that decay: "all", or "matrices", which leaves out
        those of fewer than two dimensions: norms and biases.
      clip_gradient_norm: largest norm of the whole gradient; a larger one is
        scaled down to it. 0 leaves gradients alone.
      ema_decay: of an exponential moving average of weights and statistics,
        which is then what is validated and saved as the network; it begins
        with shorter averages. 0 is none.
      loss: "cross_entropy", or "binary_cross_entropy", the mean over images
        and classes, each class for itself; its gradient is that much smaller.
      label_smoothing: probability taken from the target class and shared
        by the other classes.
      mixup_alpha: mixup draws from Beta(alpha, alpha); 0 is no mixup.
      cutmix_alpha: CutMix likewise. With both, each step takes one of them,
        with equal chances.
      stochastic_depth: probability that the last bottleneck's branch is left
        out of an image; it falls linearly to that of the first, 0.
      seed: of the initial weights, the order of images and their crops.
      initial_checkpoint: None, or a file with the weights to begin with, of
        any kind that san.checkpoints reads. A head of another number of
        classes is left out.
      head: what becomes of the head of initial_checkpoint where it has as many
        classes as the images: "by_classes" keeps it if they have the same
        names, "new" leaves it out, "kept" keeps it whatever they are called.
      frozen_stages: stages of a SAN or a ResNet, from the images on, that stay
        as initial_checkpoint has them, statistics of their norms included.
      depth_decay: what the learning rate is multiplied by for each stage from
        the head to the images; 1 is one rate for all.
      precision: "float32", or "bfloat16" for autocast to it.
      compile: train what torch.compile makes of the network.
      sync_batch_norm: statistics over the images of all processes.
      log_every_steps: steps between two logs of the loss.
      look_every_epochs: epochs between two pictures of what the network attends
        to; 0 is none.
      save_every_steps: steps between two checkpoints within an epoch; 0
        saves at the end of each epoch only.
      keep_checkpoints: the latest checkpoints that are kept, last.pth among
        them; the end of the last epoch and the best one are kept besides.
    """

    epochs: int = 100
    batch_size: int = 256
    accumulation: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    reference_batch_size: int | None = None
    schedule: str = "cosine"
    schedule_interval: str = "epoch"
    step_epochs: tuple[int, ...] = (30, 60, 90)
    step_factor: float = 0.1
    warmup_epochs: int = 0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decayed: str = "all"
    clip_gradient_norm: float = 0.0
    ema_decay: float = 0.0
    loss: str = "cross_entropy"
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    stochastic_depth: float = 0.0
    seed: int = 0
    initial_checkpoint: str | None = None
    head: str = "by_classes"
    frozen_stages: int = 0
    depth_decay: float = 1.0
    precision: str = "float32"
    compile: bool = False
    sync_batch_norm: bool = True
    log_every_steps: int = 10
    look_every_epochs: int = 10
    save_every_steps: int = 1000
    keep_checkpoints: int = 2

    @property
    def base_rate(self) -> float:
        """The learning rate for the batch size, before the schedule."""
        if self.reference_batch_size is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.reference_batch_size

    def unread(self) -> dict[str, str]:
        """What has no effect beside the rest, and why, by name."""
        cosine, first = self.schedule == "cosine", self.step_epochs[:1]
        reasons = {
            "momentum": (self.optimizer == "adamw", "AdamW has none"),
            "betas": (self.optimizer == "sgd", "SGD has none"),
            "decayed": (not self.weight_decay, "weight_decay is 0"),
            "step_factor": (cosine, "the schedule is 'cosine'"),
            "step_epochs": (cosine, "the schedule is 'cosine'"),
            "schedule": (
                not cosine and first >= (self.epochs,),
                f"no step_epochs come before epochs, {self.epochs}",
            ),
            "head": (not self.initial_checkpoint, "no initial_checkpoint"),
            "schedule_interval": (
                not cosine and not self.warmup_epochs,
                "nothing changes within an epoch without warm-up or 'cosine'",
            ),
        }
        return {name: why for name, (holds, why) in reasons.items() if holds}

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
            "keep_checkpoints",
        ):
            self._check_integer(name, 1)
        for name in (
            "warmup_epochs",
            "look_every_epochs",
            "save_every_steps",
            "seed",
            "frozen_stages",
        ):
            self._check_integer(name, 0)
        if self.reference_batch_size is not None:
            self._check_integer("reference_batch_size", 1)
        self._check("seed", "be below 2**63", self.seed < 2**63)
        self._check_number("learning_rate", "be above 0", lambda x: x > 0)
        for name in (
            "weight_decay",
            "clip_gradient_norm",
            "mixup_alpha",
            "cutmix_alpha",
        ):
            self._check_number(name, "be at least 0", lambda x: x >= 0)
        for name in (
            "momentum",
            "ema_decay",
            "label_smoothing",
            "stochastic_depth",
        ):
            self._check_number(
                name, "be at least 0 and below 1", lambda x: 0 <= x < 1
            )
        for name in ("step_factor", "depth_decay"):
            self._check_number(
                name, "be above 0 and at most 1", lambda x: 0 < x <= 1
            )
        self._check(
            "warmup_epochs",
            f"be below epochs ({self.epochs}; where a file sets it, give"
            " another by --gin_param=Recipe.warmup_epochs=N)",
            self.warmup_epochs < self.epochs,
        )
        self._check_step_epochs()
        self._check_betas()
        self._check_beginning()
        self._check_choice("optimizer", OPTIMIZERS)
        self._check_choice("schedule", SCHEDULES)
        self._check_choice("schedule_interval", INTERVALS)
        self._check_choice("decayed", DECAYED)
        self._check_choice("loss", LOSSES)
        self._check_choice("precision", PRECISIONS)
        for name in ("compile", "sync_batch_norm"):
            value = getattr(self, name)
            self._check(name, "be True or False", isinstance(value, bool))

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
        self._check(
            name,
            f"be a number and {rule}",
            _is_number(value) and math.isfinite(value) and holds(value),
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

    def _check_beginning(self) -> None:
        path = self.initial_checkpoint
        self._check(
            "initial_checkpoint",
            "be None or the name of a file",
            path is None or (isinstance(path, str) and path != ""),
        )
        self._check(
            "frozen_stages",
            "be 0 without initial_checkpoint, whose weights they keep",
            path is not None or not self.frozen_stages,
        )
        self._check_choice("head", HEADS)

    def _check_betas(self) -> None:
        betas = self.betas
        self._check(
            "betas",
            "be two numbers of at least 0 and below 1",
            isinstance(betas, tuple | list)
            and len(betas) == 2
            and all(_is_number(beta) and 0 <= beta < 1 for beta in betas),
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
