r"""Evaluates a checkpoint on validation images.

What //train:main has trained, with its settings and its images:

  bazel run //eval:imagenet -- --workdir=runs/san10_pair-digits

A published checkpoint, on ImageNet's validation images, which are
DATA_DIR/val/CLASS/*.JPEG:

  bazel run //eval:imagenet -- --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth --data_dir=DATA_DIR

Prints top-1 and top-5 accuracy, loss, calibration, images per second and the
accuracy of each class; --json=FILE writes them: top1, top5, confidence and
calibration_error in percent, loss, num_images, and under per_class the same
for each class; --csv=FILE writes the classes as a table.

What does it get wrong, and how sure was it? A page to look at, which needs
nothing else, with another network beside it:

  bazel run //eval:imagenet -- --workdir=runs/new --report=new.html \
      --against=runs/old

Other sizes than it was trained at, each resized in proportion:

  bazel run //eval:imagenet -- --workdir=runs/new --image_size=192,224,288

prints a line for each; --json writes a list of all, in the order given.

Several processes, one per GPU, start by torchrun or srun. Exit codes: 0,
or 1 if a flag was unknown or a file could not be read or written, or 2 if a
setting or the data was wrong;
--verbosity=1 shows the traceback of an error.
"""

import contextlib
import os
import pathlib
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

from absl import app, flags

from eval import command_line, evaluation, loading, report
from eval.command_line import Selected
from eval.evaluation import Evaluation
from eval.page import render
from san import data
from san.jobs import entry, files, network, output, processes
from san.jobs.flags import define, define_checkpoint, define_json

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
_JSON = define_json()
_CSV = flags.DEFINE_string(
    "csv", None, "File to write the figures of each class to, as a table."
)
_REPORT = flags.DEFINE_string(
    "report", None, "HTML file to write a page to look at to."
)
_AGAINST = flags.DEFINE_string(
    "against",
    None,
    "Another work folder or checkpoint, which --report compares with. Every"
    " --gin_file and --gin_param counts for both.",
)
_SIZES = flags.DEFINE_list(
    "image_size",
    [],
    "Sizes of the network's input in pixels, such as 192,224,288."
    " Data.resize_size follows in proportion. Default: Data.image_size.",
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    output.outlive_readers()
    entry.leave(entry.run(lambda: _evaluate(argv[1:])))


def _evaluate(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    selected = command_line.selected(
        _SHARED.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )
    outputs = {
        name: command_line.output_file(name, flag.value)
        for name, flag in (
            ("json", _JSON),
            ("csv", _CSV),
            ("report", _REPORT),
        )
    }
    against, sizes = _against(outputs["report"]), _sizes()
    with processes.process_group() as process, contextlib.ExitStack() as stack:
        # A size too small should not cost what comes before it.
        for size in sizes:
            _configure(selected, size)
            network.try_network()
        before = None
        if against:
            before = _evaluated(against, sizes[0], process, stack)
        found = [_evaluated(selected, s, process, stack) for s in sizes]
        if process.is_first:
            _report(found, before, outputs)


def _against(page: pathlib.Path | None) -> Selected | None:
    """What the page compares with, if anything."""
    if _AGAINST.value is None:
        return None
    if page is None:
        raise ValueError(
            "eval: --against must come with --report, which compares, got"
            f" {_AGAINST.value} alone"
        )
    return command_line.select_any(_AGAINST.value, _TRAINED.which.value)


def _sizes() -> list[int | None]:
    """The sizes to evaluate at; None is the configured one."""
    texts = _SIZES.value
    if not all(text.strip().isdecimal() and int(text) for text in texts):
        raise ValueError(
            "eval: --image_size must be sizes in pixels, such as 192,224, got"
            f" {','.join(texts)}"
        )
    if len(texts) > 1 and (_REPORT.value or _CSV.value):
        raise ValueError(
            "eval: --report and --csv must come with one --image_size, got"
            f" {','.join(texts)}"
        )
    return [int(text) for text in texts] or [None]


def _configure(selected: Selected, size: int | None) -> None:
    """Configures a network and, in proportion, the size of its input."""
    params = _SHARED.gin_param.value
    selected.configure(_SHARED.gin_file.value, params)
    if size is not None:
        resized = data.Data().at_size(size).resize_size
        sizes = [
            f"Data.image_size = {size}",
            f"Data.resize_size = {resized}",
        ]
        selected.configure(_SHARED.gin_file.value, [*params, *sizes])


def _evaluated(
    selected: Selected,
    size: int | None,
    process: processes.Process,
    stack: contextlib.ExitStack,
) -> Evaluation:
    """One evaluation; its images are there as long as the stack is."""
    _configure(selected, size)
    data_dir = _SHARED.data_dir.value
    trained = stack.enter_context(
        loading.load(
            selected.path,
            selected.workdir,
            str(command_line.user_path(data_dir)) if data_dir else None,
            process,
        )
    )
    return evaluation.evaluate(trained, _SHARED.batch_size.value)


def _report(
    found: list[Evaluation],
    before: Evaluation | None,
    outputs: dict[str, pathlib.Path | None],
) -> None:
    one, *more = found
    print(report.by_size_as_text(found) if more else report.as_text(one))
    makers = {
        "json": lambda: report.as_json(found if more else one),
        "csv": lambda: report.as_csv(one),
        "report": lambda: render.page(one, before),
    }
    for name, file in outputs.items():
        if file:
            files.write_atomically(file, makers[name]().encode())


if __name__ == "__main__":
    app.run(main)
