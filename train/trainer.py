"""The training loop, and everything that it needs.

The chapters of Trainer are its parts, in their order. Beside this file: job.py
(a run from beginning to end), splits.py (images), stages.py (what is frozen),
optimization.py, losses.py, mixing.py, stochastic_depth.py, averaging.py,
batch_of_one.py, checkpointing.py and work_folder.py (what is saved, and where),
initial_weights.py and resuming.py (from what training begins or goes on),
interruption.py (signals), meter.py, reporting.py and messages.py (for people).
"""

import contextlib
import math
import pathlib
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import san
from eval import validation
from san import data, norms
from san.jobs import processes
from san.jobs.precision import autocast
from san.recipe import Recipe
from train import (
    batch_of_one,
    checkpointing,
    initial_weights,
    losses,
    messages,
    optimization,
    rehearsal,
    reporting,
    resuming,
    splits,
    stages,
    stochastic_depth,
)
from train.averaging import averaged
from train.checkpointing import Run, State
from train.interruption import Interruption, InterruptionError
from train.memory import SavedForBackward
from train.meter import NO_FIGURES, Meter
from train.mixing import Mixing, check_pairs, draw, mix
from train.work_folder import WorkFolder


class Trainer:
    """One training run in a work folder that it owns.

    Attributes:
      state: how far training has come.
      source: the checkpoint that it went on from, if there was one.
      length: how long it is.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: WorkFolder,
        root: str,
        resume: bool,
        process: processes.Process,
        interruption: Interruption,
    ):
        """Sets everything up, as far as the last checkpoint goes.

        Args:
          recipe: the hyperparameters.
          folder: the work folder.
          root: the data folder.
          resume: go on from the folder's last checkpoint, if there is one.
          process: this process.
          interruption: receives the signals that stop training.
        """
        self._recipe = recipe
        self._folder = folder
        self._process = process
        self._interruption = interruption
        self._meter = Meter()
        self._clock = time.monotonic()
        self._prepare_data(root, resume)
        self._prepare_network()
        self.state = State()
        self.source: pathlib.Path | None = None
        if resume:
            self._resume()
        if self.source is None:
            initial_weights.begin(self._run, process)

    # ------------------------------------------------------------------ data

    def _prepare_data(self, root: str, resume: bool) -> None:
        recipe, process, settings = self._recipe, self._process, data.Data()
        self._index, self._validation_index = processes.on_first_process(
            lambda: splits.load(root, self._folder, resume)
        )
        self._training = data.TrainingLoader(
            self._index,
            settings,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            rank=process.rank,
            world_size=process.world_size,
            device=process.device,
        )
        self.length = reporting.Length(
            recipe.epochs,
            self._training.steps_per_epoch,
            recipe.batch_size,
            recipe.look_every_epochs,
        )
        self._validation = data.ValidationLoader(
            self._validation_index,
            settings,
            batch_size=-(-recipe.batch_size // process.world_size),
            rank=process.rank,
            world_size=process.world_size,
            device=process.device,
        )

    # ------------------------------------------------- network and optimiser

    def _prepare_network(self) -> None:
        recipe, process, index = self._recipe, self._process, self._index
        num_classes = len(index.classes)
        batch_of_one.check(recipe, process.world_size)
        messages.warn_first(process, check_pairs(recipe, process.world_size))
        losses.check_smoothing(recipe.label_smoothing, num_classes)
        torch.manual_seed(recipe.seed)
        model = san.create_model(num_classes=num_classes)
        san.set_stochastic_depth(model, recipe.stochastic_depth)
        if process.world_size > 1 and recipe.sync_batch_norm:
            model = norms.synchronize_batch_norm(model)
        stages.freeze(model, recipe)
        model.to(process.device)
        self._run = Run(
            model,
            averaged(model, recipe.ema_decay) if recipe.ema_decay else None,
            optimization.create_optimizer(model, recipe),
            recipe,
            index,
            self._training.steps_per_epoch,
        )
        self._network: nn.Module = model
        if recipe.compile:
            self._network = cast(nn.Module, torch.compile(model))
        if process.world_size > 1:
            self._network = DistributedDataParallel(
                self._network, forward_sync_buffers=not recipe.sync_batch_norm
            )

    # -------------------------------------------------- resuming and saving

    def _resume(self) -> None:
        found = resuming.find(self._folder, self._run)
        if found is None:
            return
        self.source, checkpoint = found
        self.state = checkpointing.restore(checkpoint, self._run)
        if self._process.is_first:
            changes = checkpointing.changed_values(checkpoint, self._run)
            if self.is_finished():
                messages.print_finished(self.state, changes)
            else:
                messages.print_resumed(self.source, self.state, changes)

    def _save(self, is_best: bool = False) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now
        checkpoint = checkpointing.make_checkpoint(self._run, self.state)
        processes.on_first_process(
            lambda: self._folder.save(
                checkpoint,
                keep=self._recipe.keep_checkpoints,
                is_best=is_best,
                ends_epoch=self.state.step == 0,
            )
        )

    # -------------------------------------------------------------- the loop

    def run(self) -> None:
        """Trains the epochs that are left; see job.train."""
        is_first = self._process.is_first
        if is_first:
            messages.print_network(self._run.model, self._process.device)
        self._clock = time.monotonic()
        self._reporter = (
            reporting.Reporter(
                self._folder,
                self.length,
                self.state,
                self._index.classes,
                self._process.device,
            )
            if is_first
            else reporting.SilentReporter()
        )
        self._interruption.postpone()
        with self._reporter:
            while not self.is_finished():
                self._train_epoch()
                self._validate()
                if not self.is_finished():
                    self._stop_if_asked()

    def rehearse(self) -> rehearsal.Step:
        """Takes the next step, and saves nothing of it."""
        state, run = self.state, self._run
        state.step %= self.length.steps_per_epoch
        state.seen = NO_FIGURES
        self._reporter = reporting.SilentReporter()
        stages.train_mode(self._network, run.model, self._recipe)
        images, labels = next(
            self._training.epoch(state.epoch, first_step=state.step)
        )
        start = time.monotonic()
        with SavedForBackward(run.model) as saved:
            self._train_step(images, labels)
        state.take_step(self._recipe.batch_size)
        self._log()
        self._check_weights()
        seconds = time.monotonic() - start
        return rehearsal.Step(
            run,
            self._validation_index,
            self._process,
            seconds,
            state.seen.loss,
            saved.peak_mib,
        )

    def is_finished(self) -> bool:
        """Whether all epochs are trained."""
        return self.state.epoch >= self._recipe.epochs

    def _train_epoch(self) -> None:
        state, recipe = self.state, self._recipe
        stages.train_mode(self._network, self._run.model, recipe)
        batches = self._training.epoch(state.epoch, first_step=state.step)
        for images, labels in self._reporter.waiting(batches):
            self._train_step(images, labels)
            state.take_step(recipe.batch_size)
            self._reporter.stepped(state)
            if state.step % recipe.log_every_steps == 0:
                self._log()
            stop = self._interruption.agreed()
            if stop or self._must_save():
                self._log()
                self._check_weights()
                self._save()
            if stop:
                raise self._interrupted(stop)

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        run, recipe, state = self._run, self._recipe, self.state
        optimization.set_hyperparameters(
            run.optimizer, recipe, run.rate_at(state.epoch, state.step)
        )
        mixing = draw(recipe, state.epoch, state.step, images.shape[-1])
        parts = optimization.parts(len(images), recipe.accumulation)
        run.optimizer.zero_grad()
        for part in parts:
            stochastic_depth.leave_out(
                run.model,
                recipe,
                state.epoch,
                state.step,
                self._training.share,
                part,
            )
            with self._sharing_gradients(part == parts[-1]):
                self._add_gradients(
                    mix(images[part], mixing), labels[part], mixing, part
                )
        norm = optimization.gradient_norm(run.model.parameters())
        self._reporter.saw_gradient(norm)
        optimization.clip_gradient(run.model.parameters(), recipe, norm)
        run.optimizer.step()
        if run.average:
            run.average.update_parameters(run.model)

    def _sharing_gradients(self, now: bool) -> AbstractContextManager[None]:
        """Within it gradients are averaged over processes, or are not yet."""
        if now or not isinstance(self._network, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._network.no_sync()

    def _add_gradients(
        self, images: Tensor, labels: Tensor, mixing: Mixing, part: slice
    ) -> None:
        recipe, process = self._recipe, self._process
        self._reporter.saw_images(images, labels, mixing.weight)
        with autocast(process.device, recipe.precision):
            logits = self._network(images)
        loss = losses.mixed_loss(logits.float(), labels, recipe, mixing)
        # Gradients are averaged over processes, which may hold different
        # numbers of images: each loss counts by its part of the batch.
        share = len(images) * process.world_size / recipe.batch_size
        (loss * share).backward()
        self._meter.add(loss, logits, labels, continues=part.start > 0)

    def _validate(self) -> None:
        state, model = self.state, self._run.result
        processes.share_buffers(model)
        result = validation.validate(
            model,
            self._until_asked_to_stop(self._validation),
            len(self._index.classes),
            self._process.device,
            self._recipe.precision,
        )
        training, rate = state.seen, self._run.rate_at(state.epoch, 0)
        is_best = state.finish_epoch(result)
        self._save(is_best)
        self._reporter.validated(state, training, rate)
        self._reporter.look_at(model, state)

    def _until_asked_to_stop(
        self, batches: data.ValidationLoader
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches; the epoch that was trained is saved before the first.

        All processes ask together, those that are out of batches too.
        """
        left = self._reporter.validating(batches)
        for _ in range(processes.largest(len(batches))):
            if (batch := next(left, None)) is not None:
                yield batch
            self._stop_if_asked()

    # --------------------------------------------- logging, saving, stopping

    def _log(self) -> None:
        """Reads the steps since the last log; their losses must be finite."""
        rows = self._meter.read()
        if not rows:
            return
        state = self.state
        for step, row in enumerate(rows, state.step - len(rows) + 1):
            if not math.isfinite(row.loss_sum):
                self._fail(f"loss must stay finite, got {row.loss_sum}", step)
            state.seen += row
        rate = self._run.optimizer.param_groups[0]["lr"]
        self._reporter.logged(state, sum(rows, start=NO_FIGURES), rate)

    def _check_weights(self) -> None:
        sums = [
            tensor.double().sum()
            for model in {self._run.model, self._run.result}
            for tensor in model.state_dict().values()
        ]
        if not all(map(math.isfinite, torch.stack(sums).tolist())):
            self._fail("weights must stay finite", self.state.step)

    def _fail(self, what: str, step: int) -> None:
        epoch, saved = self.state.epoch, ""
        rate = self._run.rate_at(epoch, step - 1)
        if self._folder.last.exists():
            where = self._folder.path
            saved = f" What is saved in {where} is from before that."
        raise FloatingPointError(
            f"train: {what} at epoch {epoch + 1}, step {step}, with a learning"
            f" rate of {rate:g}. Try a lower Recipe.learning_rate, more"
            f" Recipe.warmup_epochs or Recipe.precision = 'float32'.{saved}"
        )

    def _must_save(self) -> bool:
        """Whether a checkpoint is due: every so many steps, and at the end.

        What an epoch has trained is safe before its validation starts.
        """
        every, step = self._recipe.save_every_steps, self.state.step
        last = self._training.steps_per_epoch
        return step == last or (every > 0 and step % every == 0)

    def _stop_if_asked(self) -> None:
        """Raises InterruptionError after a signal; everything is saved."""
        if stop := self._interruption.agreed():
            raise self._interrupted(stop)

    def _interrupted(self, received: signal.Signals) -> InterruptionError:
        epoch, step = self.state.epoch + 1, self.state.step
        place = f"epoch {epoch}, after {step} steps of it"
        if step == self._training.steps_per_epoch:
            place = f"the validation of epoch {epoch}"
        return InterruptionError(
            f"stopped in {place}. The same command goes on from there:"
            f" {self._folder.last}",
            received,
        )
