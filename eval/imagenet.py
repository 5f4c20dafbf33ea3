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

Several processes, one per GPU, start by torchrun or srun. Exit codes: 0,
or 1 if a flag was unknown or a file could not be read or written, or 2 if a
setting or the data was wrong;
--verbosity=1 shows the traceback of an error.
"""

import os
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

from absl import app

from eval import command_line, evaluation, report
from san.jobs import entry, files, processes
from san.jobs.flags import define, define_checkpoint

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
_TRAINED = define_checkpoint()


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    entry.leave(entry.run(lambda: _evaluate(argv[1:])))


def _evaluate(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    (selected,) = command_line.select(
        _given(_SHARED.workdir.value),
        _given(_TRAINED.checkpoint.value),
        _TRAINED.which.value,
    )
    selected.configure(_SHARED.gin_file.value, _SHARED.gin_param.value)
    json_file = command_line.output_file("json", _TRAINED.json.value)
    data_dir = _SHARED.data_dir.value
    with processes.process_group() as process:
        found = evaluation.evaluate(
            selected.path,
            selected.workdir,
            str(command_line.user_path(data_dir)) if data_dir else None,
            _SHARED.batch_size.value,
            process,
        )
    if process.is_first:
        print(report.as_text(found))
        if json_file:
            text = report.as_json(found)
            files.write_atomically(json_file, text.encode())


def _given(path: str | None) -> list[str]:
    return [path] if path else []


if __name__ == "__main__":
    app.run(main)
