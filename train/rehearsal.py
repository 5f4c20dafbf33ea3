"""What --dry_run prints: what training would be, one step measured."""

import dataclasses
import pathlib

from torch import Tensor

import san
from san import data
from san.jobs import config
from san.jobs.processes import Process
from train import memory, messages, reporting
from train.checkpointing import Run, State
from train.work_folder import WorkFolder

# Of the picture of the learning rate, in characters.
_COLUMNS, _ROWS = 60, 6


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step that was taken, and is to be forgotten.

    Attributes:
      run: what took it.
      validation: the validation images.
      process: in which.
      seconds: it took, without its images.
      loss: mean over its images.
      saved_mib: kept for the backward pass, at most at a time.
    """

    run: Run
    validation: data.ImageIndex
    process: Process
    seconds: float
    loss: float
    saved_mib: float


def plan(
    folder: WorkFolder,
    state: State,
    source: pathlib.Path | None,
    length: reporting.Length,
    resume: bool,
) -> str:
    """How much would be trained, and from where, in a line.

    Args:
      folder: the work folder.
      state: where training would start.
      source: the checkpoint that it would go on from, if there is one.
      length: how long all of it is.
      resume: whether it would go on from a checkpoint, if there is one.
    """
    if state.epoch >= length.epochs:
        return (
            f"would train nothing: {state.epoch} epochs are done in"
            f" {folder.path}"
        )
    steps = length.steps_left(state)
    amount = f"{steps / length.steps_per_epoch:.4g} epochs = {steps:,} steps"
    if state.epoch or state.step:
        place = (
            f"going on after {state.epoch} epochs and {state.step} steps, from"
            f" {source}"
        )
    else:
        place = f"from the beginning, in {folder.path}"
        if folder.last.exists() and not resume:
            place += ", whose checkpoints would be removed"
    return f"would train {amount}, {place}"


def report(step: Step) -> str:
    """Everything else."""
    return "\n".join(
        [
            config.operative_text(),
            *_network(step),
            *_images(step),
            *_rates(step),
            *_memory(step),
            f"one step: loss {step.loss:.4f}, {step.seconds:.3g} s without its"
            " images; the first one, not warm: later ones are faster",
        ]
    )


def _network(step: Step) -> list[str]:
    side = data.Data().image_size
    try:
        cost = san.count_cost(step.run.model, (3, side, side))
        counted = f"{cost.macs:,} for an image of {side} x {side}"
    except ValueError as error:
        counted = f"not known ({error})"
    return [
        messages.network_line(step.run.model, step.process.device),
        f"multiply-accumulates: {counted}",
    ]


def _images(step: Step) -> list[str]:
    index, batch = step.run.index, step.run.recipe.batch_size
    count = step.process.world_size
    return [
        f"images: {len(index):,} to train, {len(step.validation):,} to"
        f" validate, of {len(index.classes):,} classes, in {index.root}; their"
        " headers and ends are whole, as training looks at them, and bazel run"
        " //tools:data_doctor decodes all",
        f"steps: {len(index) // batch:,} in an epoch, of {batch:,} images in"
        f" {count} {'process' if count == 1 else 'processes'}",
    ]


def _rates(step: Step) -> list[str]:
    run, recipe = step.run, step.run.recipe
    by_step = recipe.schedule_interval == "step"
    rates = [
        run.rate_at(epoch, number)
        for epoch in range(recipe.epochs)
        for number in range(run.steps_per_epoch if by_step else 1)
    ]
    return [f"learning rate over {recipe.epochs} epochs:", *picture(rates)]


def picture(values: list[float]) -> list[str]:
    """Values above 0 as a column each, of stars; many share a column."""
    columns = min(len(values), _COLUMNS)
    shown = [
        values[column * len(values) // columns] for column in range(columns)
    ]
    top = max(shown)
    heights = [max(1, round(_ROWS * value / top)) for value in shown]
    lines = [
        "".join("*" if height >= row else " " for height in heights)
        for row in range(_ROWS, 0, -1)
    ]
    labels = [f"{top:.3g}", *[""] * (_ROWS - 2), "0"]
    return [
        f"{label:>9} |{line}".rstrip()
        for label, line in zip(labels, lines, strict=True)
    ]


def _memory(step: Step) -> list[str]:
    run = step.run
    parameters = list(run.model.parameters())
    state = run.optimizer.state.values()
    name, peak = memory.peak_mib(step.process.device)
    rows = {
        "parameters and buffers": memory.size_mib(
            (*parameters, *run.model.buffers())
        ),
        "their average": memory.size_mib(
            run.average.state_dict().values() if run.average else ()
        ),
        "gradients": memory.size_mib(
            p.grad for p in parameters if p.grad is not None
        ),
        "the optimiser's state": memory.size_mib(
            value
            for values in state
            for value in values.values()
            if isinstance(value, Tensor)
        ),
        "kept for the backward pass": step.saved_mib,
        f"most so far ({name})": peak,
    }
    return [
        "memory of process 0 in one step, MiB:",
        *(f"{mib:11,.1f}  {what}" for what, mib in rows.items()),
    ]
