"""One training run, from a work folder to a results table.

Beside it: trainer.py (the loop), data_folder.py (where images come from),
same_folder.py (that all machines see the work folder), rehearsal.py (what a dry
run says).
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import san
from san import data
from san.jobs import config, files, network, processes
from san.recipe import Recipe
from train import initial_weights, messages, rehearsal, same_folder
from train.data_folder import source
from train.interruption import Interruption
from train.trainer import Trainer
from train.work_folder import WorkFolder


def train(
    folder: WorkFolder,
    data_dir: str | None,
    resume: bool,
    process: processes.Process,
    interruption: Interruption,
) -> None:
    """Trains what is configured, in a work folder, and prints the results.

    Args:
      folder: the work folder, on a file system that all processes see.
      data_dir: the folder of images; None for a config that brings its own.
      resume: go on from the folder's last checkpoint, if there is one.
      process: this process.
      interruption: receives the signals that stop training.

    Raises:
      ValueError: if a setting, the data or the checkpoint is no good.
      FloatingPointError: if the loss or the weights are no longer finite.
      OSError: if a file cannot be written.
      InterruptionError: on a signal, after saving.
    """
    with _set_up(
        folder, False, data_dir, resume, process, interruption
    ) as trainer:
        if not resume:
            processes.on_first_process(folder.forget)
        if not trainer.is_finished():
            _write_text(folder.config, config.resolved_text())
            # That of an earlier run; this one's comes at its end.
            processes.on_first_process(
                lambda: folder.operative.unlink(missing_ok=True)
            )
            trainer.run()
            _write_text(folder.operative, config.operative_text())
        if process.is_first:
            print(messages.results(folder, trainer.state))


def rehearse(
    folder: WorkFolder,
    data_dir: str | None,
    resume: bool,
    process: processes.Process,
    interruption: Interruption,
) -> None:
    """Prints what `train` would do, after one step of it; leaves no trace.

    The arguments are those of `train`, and what it raises.
    """
    with _set_up(
        folder, True, data_dir, resume, process, interruption
    ) as trainer:
        plan = rehearsal.plan(
            folder, trainer.state, trainer.source, trainer.length, resume
        )
        if not trainer.is_finished():
            step = trainer.rehearse()
            if process.is_first:
                print(rehearsal.report(step))
        if process.is_first:
            print(plan)


@contextlib.contextmanager
def _set_up(
    folder: WorkFolder,
    is_rehearsal: bool,
    data_dir: str | None,
    resume: bool,
    process: processes.Process,
    interruption: Interruption,
) -> Iterator[Trainer]:
    """A trainer that is where the last checkpoint is."""
    recipe = Recipe()
    if process.is_first:
        messages.print_unread(recipe, data.Data())
    san.set_attention_backend()  # The configured one.
    make_images = source(data_dir)
    # A mistake in the network should not wait for the images to be listed.
    network.try_network()
    if not (resume and (folder.last.exists() or folder.others())):
        initial_weights.try_out(recipe)
    with contextlib.ExitStack() as stack:
        enter = folder.untouched if is_rehearsal else folder.owned
        processes.on_first_process(lambda: stack.enter_context(enter()))
        if not is_rehearsal:
            same_folder.check(folder.path, process)
        root = processes.on_first_process(lambda: _root(make_images, folder))
        trainer = Trainer(recipe, folder, root, resume, process, interruption)
        if process.is_first:
            messages.print_never_read()
        yield trainer


def _root(make_images: Callable[[str], str], folder: WorkFolder) -> str:
    """The data folder; that of an earlier run, where it made the same."""
    root = pathlib.Path(make_images(str(folder.scratch)))
    if root.is_relative_to(folder.scratch):
        earlier = folder.path / root.relative_to(folder.scratch)
        root = earlier if earlier.is_dir() else root
    return str(root)


def _write_text(path: pathlib.Path, text: str) -> None:
    processes.on_first_process(
        lambda: files.write_atomically(path, text.encode())
    )
