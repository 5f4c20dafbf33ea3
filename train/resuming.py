"""Which checkpoint training goes on from, and what it trains again.

That is last.pth, unless it is damaged or, within an epoch, the list of images
has changed: the order of an epoch's images is drawn from their number.
"""

import pathlib
import sys
from typing import Any

from san import checkpoints
from san.jobs import processes
from train import checkpointing
from train.checkpointing import Run
from train.place import Place
from train.work_folder import WorkFolder

_START_AGAIN = "; to start again, give --resume=false"


def find(
    folder: WorkFolder, run: Run
) -> tuple[pathlib.Path, dict[str, Any]] | None:
    """The checkpoint to go on from, and its file; called by all processes.

    What is not as it was left is said on stderr.

    Args:
      folder: the work folder, which process 0 owns.
      run: the run, at its start.

    Returns:
      None where training starts from the initial weights.

    Raises:
      ValueError: if no checkpoint that is needed is whole, or they are of
        another network or of other classes.
      OSError: if a file cannot be read or written.
    """
    last = processes.on_first_process(lambda: _last_whole(folder))
    if last is None:
        return None
    checkpoint = checkpoints.read_checkpoint(last)
    checkpointing.check_same_training(checkpoint, run)
    if name := checkpointing.other_origin(checkpoint, run):
        processes.on_first_process(
            lambda: _warn(
                f"{name} has no effect: training goes on from {last}, and"
                " began as it was then; --resume=false begins again"
            )
        )
    if not checkpointing.is_order_lost(checkpoint, run):
        return last, checkpoint
    path = processes.on_first_process(
        lambda: _start_of_epoch(folder, checkpoint, len(run.index))
    )
    return None if path is None else (path, checkpoints.read_checkpoint(path))


def _last_whole(folder: WorkFolder) -> pathlib.Path | None:
    """last.pth, in whose place the newest whole one is put if it is damaged.

    In a dry run nothing is put anywhere. None where there are no checkpoints.
    """
    fault = _fault(folder)
    if fault is None:
        return folder.last if folder.last.exists() else None
    whole = _whole(folder.others())
    if not whole:
        raise ValueError(f"{fault}{_START_AGAIN}")
    path, place = max(whole, key=lambda found: found[1])
    lost = _trained_after(place, folder.last)
    kept = None if folder.is_rehearsal else folder.replace_last(path)
    _warn(
        f"{fault}{f'; kept as {kept.name}' if kept else ''}; training goes on"
        f" from {path.name}, after {place}; to train again: {lost}"
    )
    return path if folder.is_rehearsal else folder.last


def _fault(folder: WorkFolder) -> str | None:
    """What is the matter with last.pth, if anything."""
    try:
        if folder.load() is None and folder.others():
            return f"{folder.last} is missing"
    except ValueError as error:
        return str(error)
    return None


def _trained_after(place: Place, path: pathlib.Path) -> str:
    """What a damaged file had trained after a place, if it still says so."""
    try:
        end = Place.of(checkpoints.read_checkpoint(path, verify=False))
    except (ValueError, OSError):
        return "what came later, which cannot be read"
    return max(end, place).since(place)


def _whole(paths: list[pathlib.Path]) -> list[tuple[pathlib.Path, Place]]:
    """The files that are whole; says of the others that they are not."""
    whole = []
    for path in paths:
        try:
            place = Place.of(checkpoints.read_checkpoint(path))
        except ValueError as error:
            _warn(str(error))
        else:
            whole.append((path, place))
    return whole


def _start_of_epoch(
    folder: WorkFolder, checkpoint: dict[str, Any], num_images: int
) -> pathlib.Path | None:
    """The file that the epoch under way, or one before it, starts from.

    None where it starts from the initial weights.
    """
    now = Place.of(checkpoint)
    path, start = None, Place(0, 0, now.steps_per_epoch)
    if now.epoch:
        starts = [
            (path, place)
            for path, place in _whole(folder.others())
            if place.step == 0 and place <= now
        ]
        if not starts:
            raise ValueError(
                "resume: within an epoch, the list of training images must be"
                f" the checkpoint's where {folder.epoch} is no whole file"
                f"{_START_AGAIN}"
            )
        path, start = max(starts, key=lambda found: found[1])
    old = checkpoint["num_images"]
    _warn(
        "the list of training images changed within epoch"
        f" {now.epoch + 1} ({old} then, {num_images}"
        f"{' others' if old == num_images else ''} now): epoch"
        f" {start.epoch + 1} is trained again from its first step, replaying"
        f" {now.since(start)}"
    )
    return path


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
