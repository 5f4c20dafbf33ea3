"""Trains an image classifier.

The published ImageNet recipe for SAN10 with pairwise attention:

  bazel run //train:main -- --gin_file=san10_pair.gin --data_dir=/path/to/images

where the folder holds train/CLASS/*.JPEG and val/CLASS/*.JPEG; the number of
classes follows it. Handwritten digits in minutes, without a download:

  bazel run //train:main -- --gin_file=san10_pair.gin --gin_file=digits.gin

Each row of the paper's tables has a configuration of its name:

  bazel run //train:main -- --gin_file=table4/pair/hadamard.gin ...

Any value can be changed by name (san/recipe.py and san/data/settings.py say
what there is):

  ... --gin_param=Recipe.learning_rate=0.05 --gin_param=Recipe.mixup_alpha=0.2

All GPUs of the machine are used, by one process each; --num_processes says
another number, on CPUs too. torchrun and srun start processes as well, on
several machines: see docs/train.md.

The work folder gets the configuration, checkpoints, TensorBoard curves, their
figures in metrics.jsonl and, in examples.png, what the network sees. --dry_run
takes one step, says what training would be and writes nothing. Training that
was stopped or killed goes on when the same command is run again, from the
checkpoint before where the last one is damaged. Where images were added or
removed within an epoch, that epoch is trained again. Ctrl-C, SIGTERM, SIGHUP
and the warnings of schedulers (SIGUSR1, SIGUSR2,
SIGXCPU) save a checkpoint first. Exit codes: 0 after the last epoch, 1 if a
flag was unknown or training failed (a file, the loss, a process that died), 2
if a setting or the data was wrong, 75 after a scheduler's warning (saved, run
me again), 130, 143 or 129 after the other signals; --verbosity=1 shows the
traceback of an error.
"""

import os
import pathlib
import sys
from typing import NoReturn

from third_party import before_torch, stop_signals

os.environ.update(before_torch.settings(ended_by=stop_signals.ALL))

from absl import app, flags

from san.jobs import config, entry, launching, output, processes, ranks
from san.jobs.flags import define
from train import job
from train.interruption import Interruption
from train.work_folder import WorkFolder

_SHARED = define(
    example="Recipe.epochs=50",
    workdir="Work folder. Default: runs/ and the names of the gin files, such"
    " as runs/san10_pair-digits.",
    data_dir="Folder with train/CLASS/* and val/CLASS/* images.",
    batch_size="Images per step, over all processes together"
    " (Recipe.batch_size).",
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the training images (Recipe.epochs)."
)
_RESUME = flags.DEFINE_boolean(
    "resume",
    True,
    "Go on from the work folder's last checkpoint. --resume=false starts"
    " again and removes its checkpoints.",
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run",
    False,
    "Say what training would do, with one step of it, and save nothing.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    None,
    "Processes on this machine. Default: one for each GPU, one without any.",
)
_STOP_SECONDS = flags.DEFINE_float(
    "stop_seconds",
    120.0,
    "Seconds after which a stop that a signal asked for is forced, unsaved. A"
    " scheduler's patience is often 30.",
    lower_bound=0.0,
)

_REMEDY = "the same command goes on from the last checkpoint"


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    output.outlive_readers()
    entry.leave(entry.run(lambda: _run(argv[1:])))


def _run(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    config.parse(
        _SHARED.gin_file.value, [*_SHARED.gin_param.value, *_flag_bindings()]
    )
    count = launching.num_processes(_NUM_PROCESSES.value)
    if count > 1:
        command = [os.path.abspath(__file__), *sys.argv[1:]]
        entry.leave(launching.launch(count, command))
    launching.end_with_launcher()
    _train()


def _train() -> None:
    data_dir = _SHARED.data_dir.value and config.user_path(
        _SHARED.data_dir.value
    )
    interruption = Interruption(ranks.find().rank == 0, _STOP_SECONDS.value)
    # For good: launchers send more signals while the process is ending.
    interruption.start()
    with processes.process_group(_REMEDY) as process:
        run = job.rehearse if _DRY_RUN.value else job.train
        run(_work_folder(), data_dir, _RESUME.value, process, interruption)


def _flag_bindings() -> list[str]:
    """The flags that are settings, as gin sees them."""
    settings = {
        "Recipe.batch_size": _SHARED.batch_size.value,
        "Recipe.epochs": _EPOCHS.value,
    }
    return [
        f"{name} = {value}"
        for name, value in settings.items()
        if value is not None
    ]


def _work_folder() -> WorkFolder:
    titles = [config.title(name) for name in _SHARED.gin_file.value]
    default = "runs/" + ("-".join(titles) or "default")
    return WorkFolder(
        pathlib.Path(config.user_path(_SHARED.workdir.value or default))
    )


if __name__ == "__main__":
    app.run(main)
