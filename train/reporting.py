"""What a person sees of training while it runs: progress and curves.

Progress goes to stderr, as a bar on a terminal and as an occasional line
elsewhere; figures go to the sinks of sinks.py. Only the first process reports.
"""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

import torch
import tqdm
from torch import Tensor, nn

from san import data
from train import examples, memory, messages
from train.checkpointing import State
from train.curves import Curves
from train.meter import Figures
from train.metrics import Metrics
from train.pictures import PictureFile
from train.sinks import Picture, Point, Sinks
from train.waiting import DataWait
from train.work_folder import WorkFolder

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]  # Images and labels.

# Fits into 80 columns.
_BAR = "{desc}{percentage:4.0f}% |{bar}| {remaining} left{postfix}"

_MAX_EXAMPLES = 16

# Seconds between two progress lines where stderr is not a terminal.
_LINE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Length:
    """How long training is.

    Attributes:
      epochs: number of epochs.
      steps_per_epoch: optimiser steps in each.
      batch_size: images per step, over all processes.
      epochs_per_look: epochs between two pictures of footprints; 0 for none.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    epochs_per_look: int = 0

    def steps_left(self, state: State) -> int:
        """Optimiser steps from a state to the end."""
        epochs = self.epochs - state.epoch
        return epochs * self.steps_per_epoch - state.step


class SilentReporter:
    """Reports nothing, as all processes but the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, for each of which training may have to wait."""
        return iter(batches)

    def saw_images(self, images: Tensor, labels: Tensor, weight: float) -> None:
        """The network gets images, each mixed by weight with its partner."""

    def saw_gradient(self, norm: Tensor) -> None:
        """A step's gradient has a norm, a scalar that is not read yet."""

    def stepped(self, state: State) -> None:
        """A step was taken."""

    def logged(self, state: State, figures: Figures, rate: float) -> None:
        """The latest steps are computed; they had a learning rate."""

    def validating(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches that the network is validated on."""
        return iter(batches)

    def validated(self, state: State, training: Figures, rate: float) -> None:
        """An epoch was trained with a learning rate, and validated."""

    def look_at(self, model: nn.Module, state: State) -> None:
        """The network, after an epoch."""


class Reporter(SilentReporter):
    """Shows progress and keeps the figures of one run."""

    def __init__(
        self,
        folder: WorkFolder,
        length: Length,
        state: State,
        classes: Sequence[str],
        device: torch.device,
    ):
        """Starts the progress bar and the curves.

        Args:
          folder: where the figures go.
          length: how long training is.
          state: where it starts.
          classes: their names.
          device: where it computes.
        """
        self._length = length
        self._first_step = self._logged_step = state.total_steps
        self._start = self._logged_time = time.monotonic()
        self._line_time = self._start
        self._seconds_before = state.seconds
        self._epoch_images, self._epoch_seconds = 0, 0.0
        self._classes, self._device = classes, device
        self._has_shown = self._has_warned = False
        self._looked_at: Tensor | None = None
        self._wait = DataWait(device)
        self._norms: list[Tensor] = []
        self._sinks = Sinks(
            [
                Curves(folder.tensorboard, self._first_step + 1),
                Metrics(folder.metrics, state.epoch, state.step),
                PictureFile(folder.examples),
                PictureFile(folder.footprints),
            ]
        )
        self._bar = tqdm.tqdm(
            total=state.total_steps + length.steps_left(state),
            initial=self._first_step,
            smoothing=0.05,
            bar_format=_BAR,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        self._sinks.close()

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; how long each takes to come is measured."""
        return self._wait.during(batches)

    def saw_images(self, images: Tensor, labels: Tensor, weight: float) -> None:
        """Shows the first ones, so that a person can look at them."""
        if self._has_shown:
            return
        self._has_shown = True
        images, labels = images[:_MAX_EXAMPLES], labels[:_MAX_EXAMPLES]
        texts = examples.captions(labels, weight, self._classes)
        picture = examples.draw(images, texts, data.Data())
        self._sinks.show(
            Picture("examples", self._first_step + 1, picture, "; ".join(texts))
        )

    def saw_gradient(self, norm: Tensor) -> None:
        """Keeps the norm on its device until the next log."""
        self._norms.append(norm)

    def stepped(self, state: State) -> None:
        """Moves the bar."""
        self._bar.set_description_str(
            f"epoch {state.epoch + 1}/{self._length.epochs}", refresh=False
        )
        self._bar.update()

    def logged(self, state: State, figures: Figures, rate: float) -> None:
        """Shows the figures of the steps since the last log."""
        now, step = time.monotonic(), state.total_steps
        images = (step - self._logged_step) * self._length.batch_size
        seconds = now - self._logged_time
        self._logged_step, self._logged_time = step, now
        self._epoch_images += images
        self._epoch_seconds += seconds
        speed = images / seconds
        memory_name, peak = memory.peak_mib(self._device)
        self._draw(
            "train",
            state,
            {
                "loss": figures.loss,
                "top1": figures.top1,
                "learning_rate": rate,
                "gradient_norm": float(torch.stack(self._norms).mean()),
                "images_per_second": speed,
                "data_wait_share": self._wait.read() / seconds,
                memory_name: peak,
            },
        )
        self._norms.clear()
        text = (
            f"loss {figures.loss:.3f}, top-1 {figures.top1:.1f}%,"
            f" {speed:.0f} images/s"
        )
        self._bar.set_postfix_str(text, refresh=False)
        if self._bar.disable and now - self._line_time >= _LINE_SECONDS:
            self._line_time = now
            self._print_step(state, text)

    def _print_step(self, state: State, text: str) -> None:
        done = self._logged_step - self._first_step
        left = self._length.steps_left(state)
        seconds_left = left * (time.monotonic() - self._start) / done
        print(
            f"epoch {state.epoch + 1}/{self._length.epochs},"
            f" step {state.step}/{self._length.steps_per_epoch}:"
            f" {text}, {messages.duration(seconds_left)} left",
            file=sys.stderr,
        )

    def validated(self, state: State, training: Figures, rate: float) -> None:
        """Shows the epoch that was just completed."""
        validation = state.latest
        assert validation is not None
        self._draw(
            "validation",
            state,
            {
                "loss": validation.loss,
                "top1": validation.top1,
                "top5": validation.top5,
                "num_images": validation.num_images,
                "training_loss": training.loss,
                "training_top1": training.top1,
                "learning_rate": rate,
            },
        )
        self._sinks.flush()
        speed = self._epoch_images / max(self._epoch_seconds, 1e-9)
        self._bar.write(
            f"epoch {state.epoch}/{self._length.epochs}:"
            f" loss {training.loss:.3f}, learning rate {rate:.4g},"
            f" {speed:.0f} images/s; validation loss {validation.loss:.3f},"
            f" top-1 {validation.top1:.2f}%, top-5 {validation.top5:.2f}%"
            + (" (best)" if validation == state.best else ""),
            file=sys.stderr,
        )
        # The speed shown is that of training alone.
        self._logged_time = time.monotonic()
        self._epoch_images, self._epoch_seconds = 0, 0.0

    def validating(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the first images are kept, to look at the network by."""
        for batch in batches:
            if self._looked_at is None:
                self._looked_at = batch[0][:_MAX_EXAMPLES].clone()
            yield batch

    def look_at(self, model: nn.Module, state: State) -> None:
        """Shows what the network attends to, every few epochs."""
        every, images = self._length.epochs_per_look, self._looked_at
        if not every or state.epoch % every or images is None:
            return
        # Not before it is needed: the import of matplotlib takes a second.
        from eval.footprints import sheet

        title = f"mean footprints after {state.epoch} epochs"
        try:
            pixels = sheet.of_network(model, images, title)
        except Exception as error:  # Of a network that somebody has changed.
            self._warn_unseen(error)
            return
        if pixels is not None:
            self._sinks.show(
                Picture("footprints", state.total_steps, pixels, title)
            )

    def _warn_unseen(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            print(
                f"warning: no footprints are shown ({error}); training goes on",
                file=sys.stderr,
            )

    def _draw(
        self, kind: str, state: State, figures: Mapping[str, float]
    ) -> None:
        steps_per_epoch = self._length.steps_per_epoch
        seconds = time.monotonic() - self._start
        place = {
            "epoch": state.epoch + (state.step > 0),
            "step": state.step or steps_per_epoch,
            "epochs_trained": state.epoch + state.step / steps_per_epoch,
            "images_seen": state.total_images,
            "time": time.time(),
            "seconds": self._seconds_before + seconds,
        }
        self._sinks.draw(Point(kind, state.total_steps, place, figures))
