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

Other test sets for networks of ImageNet, each in its folder as distributed:

  bazel run //eval:imagenet -- --workdir=runs/new --variant=a \
      --data_dir=imagenet-a

v2, a, r and sketch; predictions are compared among the classes that the set
has, as its authors do. c is a folder of corruptions: the error under each is
printed when it is known, with the mean corruption error (mCE) at the end if
nothing is missing; --json has all of it, --csv a line for each severity.
--real_labels=real.json adds the accuracy by the ReaL labels to that on
ImageNet's own validation images. Of your own class folders --class_map says
which classes they are, in a JSON file such as {"goldfish": "n01443537"} or
{"goldfish": 1}. A published checkpoint does not name its classes: where that
matters, --class_map=/path/to/ImageNet/val does.

Several processes, one per GPU, start by torchrun or srun. Exit codes: 0,
or 1 if a flag was unknown or a file could not be read or written, or 2 if a
setting or the data was wrong;
--verbosity=1 shows the traceback of an error.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

import tqdm
from absl import app, flags

from eval import command_line, evaluation, loading, real_labels, report
from eval.command_line import Selected
from eval.evaluation import Evaluation
from eval.page import render
from eval.variants import class_map, corruption_errors, corruption_report
from eval.variants.definitions import VARIANTS
from eval.variants.loading import Request
from eval.variants.loading import load as load_variant
from san import data
from san.jobs import entry, files, network, output, processes
from san.jobs.flags import define, define_checkpoint, define_json, define_path

_SHARED = define(
    example="Data.image_size=256",
    workdir="Work folder of //train:main, to evaluate its network. Every"
    " --gin_file and --gin_param changes its config.gin.",
    data_dir="Folder with val/CLASS/* images, or of a variant. Default: what the"
    " network was trained on.",
    batch_size="Images at a time, over all processes together. Default: the"
    " recipe's.",
    least_batch=1,
)
_TRAINED = define_checkpoint()
_JSON = define_json()
_CSV = define_path(
    "csv", "File to write the figures of each class to, as a table."
)
_REPORT = define_path("report", "HTML file to write a page to look at to.")
_AGAINST = define_path(
    "against",
    "Another work folder or checkpoint, which --report compares with. Every"
    " --gin_file and --gin_param counts for both.",
)
_SIZES = flags.DEFINE_list(
    "image_size",
    [],
    "Sizes of the network's input in pixels, such as 192,224,288."
    " Data.resize_size follows in proportion. Default: Data.image_size.",
)
_CORRUPTED = "c"
_VARIANT = flags.DEFINE_enum(
    "variant",
    None,
    [*VARIANTS, _CORRUPTED],
    "Which variant of ImageNet --data_dir is: ImageNetV2, ImageNet-A, -R,"
    " -Sketch or -C, class folders without val/.",
)
_CLASS_MAP = define_path(
    "class_map",
    "JSON file that gives each class folder of --data_dir its class, by name or"
    " by number from 0; without --variant, of a test set of your own. Or a"
    " folder with all classes, whose order a network has that does not name"
    " its own.",
)
_AMONG = flags.DEFINE_enum(
    "among",
    "all",
    ["all", "folders"],
    "For a test set of your own: compare predictions among all of the network's"
    " classes, or among those that have class folders, which is easier.",
)
_REAL_LABELS = define_path(
    "real_labels",
    "real.json of the ReaL labels, for ImageNet's validation images.",
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    output.outlive_readers()
    entry.leave(entry.run(lambda: _evaluate(argv[1:])))


def _evaluate(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    which = _TRAINED.which.value
    if _TRAINED.checkpoint.value and _AGAINST.value:
        which = "best"  # It is about --against alone.
    selected = command_line.selected(
        _SHARED.workdir.value, _TRAINED.checkpoint.value, which
    )
    outputs = command_line.output_files(
        {"json": _JSON.value, "csv": _CSV.value, "report": _REPORT.value}
    )
    against, sizes = _against(outputs["report"]), _sizes()
    request, real = _request(), _real()
    if request and request.variant == _CORRUPTED:
        _evaluate_corrupted(selected, sizes, request, outputs)
        return
    with processes.process_group() as process, contextlib.ExitStack() as stack:
        # A size too small should not cost what comes before it.
        for size in sizes:
            _configure(selected, size)
            network.try_network()

        def evaluated(one: Selected, size: int | None) -> Evaluation:
            _configure(one, size)
            trained = _load(one, request, process, stack)
            return evaluation.evaluate(trained, _SHARED.batch_size.value, real)

        before = evaluated(against, sizes[0]) if against else None
        found = [evaluated(selected, size) for size in sizes]
        if process.is_first:
            _report(found, before, outputs)


def _evaluate_corrupted(
    selected: Selected,
    sizes: list[int | None],
    request: Request,
    outputs: dict[str, pathlib.Path | None],
) -> None:
    """Prints the errors under each corruption as they come."""
    if outputs["report"] or len(sizes) > 1:
        raise ValueError(
            "eval: --variant=c must come without --report and with one"
            " --image_size at most, that of its images, got"
            f" {'--report' if outputs['report'] else '--image_size'}"
        )
    _configure(selected, sizes[0])
    with processes.process_group() as process:
        trial = corruption_errors.prepare(
            selected.path,
            selected.workdir,
            request.folder,
            request.class_map,
            process,
        )
        _print(process, corruption_report.head(trial))
        found = []
        for one in corruption_errors.measure(trial, _SHARED.batch_size.value):
            found.append(one)
            _print(process, corruption_report.line(trial, one))
        _print(process, corruption_report.tail(trial, found))
        if process.is_first:
            makers = {
                "json": lambda: corruption_report.as_json(trial, found),
                "csv": lambda: corruption_report.as_csv(found),
            }
            _write(outputs, makers)


def _print(process: processes.Process, text: str) -> None:
    """Prints beside a bar, at once: it may be stopped before the end."""
    if process.is_first:
        tqdm.tqdm.write(text)
        sys.stdout.flush()


def _request() -> Request | None:
    """Which variant is asked for, if any."""
    variant, mapped = _VARIANT.value, _CLASS_MAP.value
    if _AMONG.present and (variant or not mapped):
        raise ValueError(
            "eval: --among must come with --class_map and without --variant,"
            f" which says it itself, got --among={_AMONG.value}"
        )
    if not variant and not mapped:
        return None
    name = "--variant" if variant else "--class_map"
    if _SHARED.data_dir.value is None:
        raise ValueError(
            f"eval: {name} must come with --data_dir, the folder that holds its"
            f" class folders, got {variant or mapped} alone"
        )
    return Request(
        command_line.user_path(_SHARED.data_dir.value),
        variant,
        class_map.read(command_line.user_path(mapped)) if mapped else None,
        _AMONG.value == "all",
    )


def _real() -> list[list[int]] | None:
    """The ReaL labels, if they are asked for."""
    if _REAL_LABELS.value is None:
        return None
    if _VARIANT.value or _CLASS_MAP.value:
        raise ValueError(
            "eval: --real_labels must come without --variant and --class_map:"
            " they are of ImageNet's own validation images, got"
            f" {_REAL_LABELS.value} beside one"
        )
    return real_labels.read(command_line.user_path(_REAL_LABELS.value))


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


def _load(
    selected: Selected,
    request: Request | None,
    process: processes.Process,
    stack: contextlib.ExitStack,
) -> loading.Trained:
    """A network and its images, which are there as long as the stack is."""
    if request:
        return load_variant(selected.path, selected.workdir, request, process)
    data_dir = _SHARED.data_dir.value
    return stack.enter_context(
        loading.load(
            selected.path,
            selected.workdir,
            str(command_line.user_path(data_dir)) if data_dir else None,
            process,
        )
    )


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
    _write(outputs, makers)


def _write(
    outputs: dict[str, pathlib.Path | None],
    makers: dict[str, Callable[[], str]],
) -> None:
    for name, file in outputs.items():
        if file:
            files.write_output(file, makers[name]().encode())


if __name__ == "__main__":
    app.run(main)
