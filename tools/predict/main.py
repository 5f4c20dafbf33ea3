r"""Says what is in images: their likeliest classes, with probabilities.

  bazel run //tools:predict -- --workdir=runs/san10_pair-digits image.png
  bazel run //tools:predict -- --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth image.jpg folder/ --top=3 --json=found.json

Takes image files, and folders with all that is called like an image in them.
They are decoded, resized and cut as validation images are (EXIF orientation
ignored). Classes are called what the checkpoint calls them; published ones
name none, and have numbers: places in the sorted list of class folders.

A line for each image; --json=FILE writes network, num_classes, images (path,
classes: name, label, probability) and unreadable (path, reason).

Exit codes: 0, or 1 if an image cannot be read (it is named, the others are
predicted), a flag was unknown or a file could not be read or written, or 2 if
a setting was wrong; --verbosity=1 shows the traceback of an error.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

from absl import app, flags

from eval import command_line, loading
from san.data import Data
from san.jobs import config, entry, files, network, output, processes
from san.jobs.flags import define_checkpoint, define_config, define_json
from san.recipe import Recipe
from tools.predict import images
from tools.predict.images import Unreadable
from tools.predict.prediction import Prediction, as_json, predict

_CONFIG = define_config(
    example="Data.image_size=256",
    workdir="Work folder of //train:main, to ask its network. Every"
    " --gin_file and --gin_param changes its config.gin.",
)
_TRAINED = define_checkpoint()
_JSON = define_json("File to write the predictions to.")
_TOP = flags.DEFINE_integer(
    "top", 5, "Classes to name for each image.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Images at a time.", lower_bound=1
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    if _JSON.value is not None:
        # It is written even if nobody reads the lines.
        output.outlive_readers()
    for stream in (sys.stdout, sys.stderr):
        # File names may be of any bytes.
        stream.reconfigure(errors="backslashreplace")
    unreadable: list[Unreadable] = []
    code = entry.run(lambda: unreadable.extend(_predict(argv[1:])))
    entry.leave(code or int(bool(unreadable)))


def _predict(paths: Sequence[str]) -> list[Unreadable]:
    """Prints and writes what was asked for; returns what is unreadable."""
    if not paths:
        raise ValueError(
            "predict: the command line must name images or folders, got none;"
            " see --help"
        )
    json_file = command_line.output_file("json", _JSON.value)
    asked = _network()
    found, unreadable = images.look_at(
        images.files_of([config.user_path(path) for path in paths])
    )
    for one in unreadable:
        _warn(one)
    predictions = []
    for answer in _answers(asked, found):
        if isinstance(answer, Unreadable):
            _warn(answer)
            unreadable.append(answer)
        else:
            print(answer.as_text(), flush=True)
            predictions.append(answer)
    if json_file:
        text = as_json(asked, predictions, unreadable)
        files.write_output(json_file, text.encode())
    return unreadable


def _network() -> loading.Network:
    selected = command_line.selected(
        _CONFIG.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )
    selected.configure(_CONFIG.gin_file.value, _CONFIG.gin_param.value)
    network.try_network()
    asked = loading.read_network(selected.path, selected.workdir)
    if asked.classes is None:
        print(
            "the checkpoint does not name its classes: they have numbers",
            file=sys.stderr,
        )
    return asked


def _answers(
    asked: loading.Network, found: Sequence[images.Image]
) -> Iterator[Prediction | Unreadable]:
    with processes.process_group() as process:
        yield from predict(
            asked,
            found,
            Data(),
            precision=Recipe().precision,
            batch_size=_BATCH_SIZE.value,
            top=_TOP.value,
            device=process.device,
        )


def _warn(one: Unreadable) -> None:
    print(f"{one.path} {one.reason}", file=sys.stderr)


if __name__ == "__main__":
    # Flags may come after the images.
    flags.FLAGS.set_gnu_getopt()
    app.run(main)
