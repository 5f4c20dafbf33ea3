"""What training says at its start and at its end, in lines for people."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import san
from san import data
from san.backend import FUSING
from san.jobs import config
from san.jobs.processes import Process
from san.recipe import Recipe
from train import stages
from train.checkpointing import State
from train.work_folder import WorkFolder

# Of why a network is not fused, in its first line.
_MAX_REASONS = 3

# Is there where an NVIDIA driver is loaded.
_DRIVER = pathlib.Path("/proc/driver/nvidia/version")

# What is no longer as it was: (old, new) by name.
Changes = Mapping[str, tuple[Any, Any]]


def print_network(model: nn.Module, device: torch.device) -> None:
    """Prints what is trained, and where and how it computes."""
    print(network_line(model, device), file=sys.stderr)


def network_line(model: nn.Module, device: torch.device) -> str:
    """What is trained, and where and how it computes."""
    num_parameters = sum(p.numel() for p in model.parameters())
    chosen = san.attention_backend()
    return (
        f"{type(model).__name__} with {num_parameters:,} parameters on"
        f" {device}, attention backend {chosen!r}"
        + _idle_gpu(device)
        + (_unfused(model) if chosen in FUSING else "")
    )


def _idle_gpu(device: torch.device) -> str:
    """That a GPU is left out for want of the right torch, and the remedy."""
    if device.type != "cpu" or torch.version.cuda or not _DRIVER.exists():
        return ""
    return (
        f"; beside an NVIDIA driver, but torch {torch.__version__} is built"
        " for CPUs, for a reason that the build has said: bazel run"
        " --config=cuda (or SAN_TORCH=cuda) takes the one for CUDA, which"
        " needs a driver of CUDA 13"
    )


def _unfused(model: nn.Module) -> str:
    """What of a network is not fused, and why."""
    reasons = san.why_unfused(model)
    if not reasons:
        return ""
    listed = reasons[:_MAX_REASONS]
    more = len(reasons) - len(listed)
    return f"; not fused: {'; '.join(listed)}" + (
        f"; and {more} more" if more else ""
    )


def warn_first(process: Process, text: str) -> None:
    """Warns of something, if it is anything, on the first process."""
    if text and process.is_first:
        print(f"warning: {text}", file=sys.stderr)


def print_unread(recipe: Recipe, settings: data.Data) -> None:
    """Warns of what is configured and has no effect beside the rest."""
    bound = config.bindings()
    unread = {f"Recipe.{name}": why for name, why in recipe.unread().items()}
    unread |= {f"Data.{name}": why for name, why in settings.unread().items()}
    for name in unread.keys() & bound.keys():
        print(f"warning: {name} has no effect: {unread[name]}", file=sys.stderr)


def print_never_read() -> None:
    """Warns of what is configured and no part of this run has asked for."""
    for name in config.unread_bindings():
        print(
            f"warning: {name} has no effect: nothing in this run reads it",
            file=sys.stderr,
        )


def print_initial(
    model: nn.Module, recipe: Recipe, origin: dict[str, Any] | None
) -> None:
    """Prints what training begins with, unless that is fresh weights."""
    if origin is None:
        return
    parts = [f"beginning with the weights of {recipe.initial_checkpoint}"]
    if origin["left_out"]:
        parts.append(origin["left_out"])
    count = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    if recipe.frozen_stages:
        parts.append(
            f"frozen: {recipe.frozen_stages} of"
            f" {len(stages.stages_of(model))} stages, {count:,} parameters"
        )
    print("; ".join(parts), file=sys.stderr)


def print_finished(state: State, changes: Changes) -> None:
    """Prints why nothing is trained, and that other settings change nothing."""
    print(
        f"nothing left to train: {state.epoch} epochs are done; --epochs asks"
        " for more",
        file=sys.stderr,
    )
    for name, (old, new) in changes.items():
        print(
            f"warning: {name} was {old!r} in what is done, and stays so; not"
            f" {new!r}",
            file=sys.stderr,
        )


def print_resumed(path: pathlib.Path, state: State, changes: Changes) -> None:
    """Prints where training goes on, and what the recipe has changed."""
    print(
        f"going on after {state.epoch} epochs and {state.step} steps, from"
        f" {path}",
        file=sys.stderr,
    )
    for name, (old, new) in changes.items():
        print(
            f"warning: {name} was {old!r} so far and is {new!r} now",
            file=sys.stderr,
        )


def results(folder: WorkFolder, state: State) -> str:
    """The results table, and what to run next."""
    lines = [
        f"results of {folder.path}",
        f"{'':>6}{'epoch':>7}{'top-1':>10}{'top-5':>10}{'loss':>9}"
        f"{'images':>9}",
    ]
    for name, figures in (("best", state.best), ("last", state.latest)):
        assert figures is not None
        lines.append(
            f"{name:>6}{figures.epoch:>7}{figures.top1:>9.2f}%"
            f"{figures.top5:>9.2f}%{figures.loss:>9.4f}"
            f"{figures.num_images:>9}"
        )
    return "\n".join(
        [
            *lines,
            f"training took {duration(state.seconds)}",
            f"best checkpoint: {folder.best}",
            "evaluate it by: bazel run //eval:imagenet --"
            f" --workdir={folder.path}",
        ]
    )


def duration(seconds: float) -> str:
    """A duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"
