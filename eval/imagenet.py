r"""Evaluates a checkpoint on validation images.

What //train:main has trained, with its settings and its images:

  bazel run //eval:imagenet -- --workdir=runs/san10_pair-digits

A published checkpoint, on ImageNet's validation images, which are
DATA_DIR/val/CLASS/*.JPEG:

  bazel run //eval:imagenet -- --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth --data_dir=DATA_DIR

Prints top-1 and top-5 accuracy, loss, images per second and the accuracy of
each class; --json=FILE writes them: top1 and top5 in percent, loss,
num_images, and under per_class the same for each class.

Several processes, one per GPU, start as torchrun starts them. Exit codes: 0,
or 1 if a flag was unknown or a file could not be read or written, or 2 if a
setting or the data was wrong;
--verbosity=1 shows the traceback of an error.
"""

import os
import pathlib

from absl import app, flags

from third_party import before_torch

os.environ.update(before_torch.settings())

from eval import evaluation, report
from san.jobs import config, entry, files, processes
from san.jobs.flags import define

_SHARED = define(
    example="Data.image_size=256",
    workdir="Work folder of //train:main, to evaluate its network. Every"
    " --gin_file and --gin_param changes its config.gin.",
    data_dir="Folder with val/CLASS/* images. Default: what the network was"
    " trained on.",
    batch_size="Images at a time, over all processes together. Default: the"
    " recipe's.",
    least_batch=1,
)
_WHICH = flags.DEFINE_enum(
    "which", "best", ["best", "last"], "Which checkpoint of --workdir."
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Checkpoint to evaluate, a published one or one of //train:main; the gin"
    " files name its network.",
)
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")


def main(argv: list[str]) -> int:
    """Runs the job."""
    return entry.run(lambda: _evaluate(argv[1:]))


def _evaluate(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    workdir, checkpoint = _user_path(_SHARED.workdir.value), _checkpoint()
    own_settings = [str(workdir / "config.gin")] if workdir else []
    config.parse(
        [*own_settings, *_SHARED.gin_file.value], _SHARED.gin_param.value
    )
    json_file = _user_path(_JSON.value)
    if json_file and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise ValueError(
            f"eval: --json must be a file in an existing folder, got {json_file}"
        )
    data_dir = _user_path(_SHARED.data_dir.value)
    with processes.process_group() as process:
        found = evaluation.evaluate(
            checkpoint,
            workdir,
            str(data_dir) if data_dir else None,
            _SHARED.batch_size.value,
            process,
        )
    if process.is_first:
        print(report.as_text(found))
        if json_file:
            text = report.as_json(found)
            files.write_atomically(json_file, text.encode())


def _checkpoint() -> pathlib.Path:
    """The file to evaluate."""
    workdir = _user_path(_SHARED.workdir.value)
    checkpoint = _user_path(_CHECKPOINT.value)
    if checkpoint and not workdir:
        return checkpoint
    if checkpoint or not workdir:
        raise ValueError(
            "eval: exactly one of --workdir and --checkpoint must be given,"
            f" got {'both' if workdir else 'neither'}; see --help"
        )
    path = workdir / "checkpoints" / f"{_WHICH.value}.pth"
    if not path.exists():
        raise ValueError(
            "eval: --workdir must be a work folder in which //train:main has"
            f" trained an epoch, got {workdir} without {path.name}"
        )
    return path


def _user_path(path: str | None) -> pathlib.Path | None:
    return None if path is None else pathlib.Path(config.user_path(path))


if __name__ == "__main__":
    app.run(main)
