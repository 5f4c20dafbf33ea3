r"""Weights that travel: checkpoints as safetensors files, and back.

  bazel run //tools:checkpoint -- export --workdir=runs/san10_pair-digits \
      --output=san10.safetensors
  bazel run //tools:checkpoint -- export --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth --classes=imagenet.txt \
      --source="the authors' repository" --output=san10.safetensors
  bazel run //tools:checkpoint -- import --checkpoint=san10.safetensors \
      --output=san10.pth
  bazel run //tools:checkpoint -- inspect --checkpoint=FILE [--json=found.json]

export writes the weights, the classes, what the network is made of, its
preprocessing, its recipe and its figures into one file that executes nothing
when it is read and names its own SHA-256, and beside it a model card, FILE.md
(hubs want it as README.md). The same checkpoint gives the same bytes. Left out,
as is said: what training needs to go on, and the path of the images.

Whatever takes a checkpoint takes such a file: --checkpoint of evaluation,
prediction and export, which need no --gin_file then, Recipe.initial_checkpoint,
and san.create_model. import makes a .pth file of it, or of weights of any other
tool; inspect says what is in a file of any kind.

--classes=FILE names the classes, a line each in the order of the outputs, where
the checkpoint does not; --classes=unknown goes without.

Exit codes: 0, or 1 if a flag was unknown or a file could not be read or
written, or 2 if something else was wrong; --verbosity=1 shows the traceback of
an error.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

from absl import app, flags

from eval import command_line, loading
from san import checkpoints
from san.jobs import entry, files, valid_json
from san.jobs.flags import (
    define_checkpoint,
    define_config,
    define_json,
    define_path,
)
from tools.checkpoint import facts, writing

_CONFIG = define_config(
    example="Data.resize_size=256",
    workdir="Work folder of //train:main. Every --gin_file and --gin_param"
    " changes its config.gin.",
)
_TRAINED = define_checkpoint()
_JSON = define_json("File that inspect writes everything to.")
_OUTPUT = define_path("output", "File to write.")
_CLASSES = define_path(
    "classes", "File with a class name in each line, or 'unknown'."
)
_SOURCE = flags.DEFINE_string(
    "source", None, "Where the weights come from, for the model card."
)
_LICENSE = flags.DEFINE_string(
    "license", None, "Of the weights, for the model card, such as mit."
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    entry.leave(entry.run(lambda: _run(argv[1:])))


def _run(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        raise ValueError(
            "checkpoint: the command line must have one of"
            f" {', '.join(_COMMANDS)}, got {' '.join(arguments) or 'none'!r};"
            " see --help"
        )
    name = arguments[0]
    command, own_flags = _COMMANDS[name]
    for flag in (_JSON, _OUTPUT, _CLASSES, _SOURCE, _LICENSE):
        if flag.value is not None and flag.name not in own_flags:
            raise ValueError(
                f"checkpoint: --{flag.name} must not be given to {name}, which"
                f" does not use it, got {flag.value}"
            )
    command(_selected())


def _selected() -> command_line.Selected:
    return command_line.selected(
        _CONFIG.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )


def _export(selected: command_line.Selected) -> None:
    output = _output(".safetensors")
    writing.check_card(output)
    selected.configure(_CONFIG.gin_file.value, _CONFIG.gin_param.value)
    network = loading.read_network(selected.path, selected.workdir)
    classes = None
    if _CLASSES.value != facts.UNKNOWN:
        classes = _class_names(network)
    told = facts.of_network(network, classes, _SOURCE.value, _LICENSE.value)
    writing.write_safetensors(output, network.model, told)
    if others := facts.other_dtypes(network.checkpoint, network.model):
        print(f"weights were {', '.join(others)}, and are float32 now")
    _say_written(output, network.checkpoint)


def _class_names(network: loading.Network) -> list[str]:
    """The names of the outputs, from the flag or the checkpoint."""
    count = network.num_classes
    if _CLASSES.value is not None:
        path = command_line.user_path(_CLASSES.value)
        names = path.read_text(encoding="utf-8-sig").splitlines()
        if len(names) != count or len(set(names)) != count or not all(names):
            raise ValueError(
                f"checkpoint: --classes must name {count} different classes, a"
                f" line each, got {len(set(names))} in {len(names)} lines of"
                f" {path}"
            )
        return names
    if network.classes is None:
        raise ValueError(
            "checkpoint: the file must name its classes, got none; give"
            f" --classes=FILE with its {count} names, a line each in the order"
            " of the outputs, or --classes=unknown"
        )
    return network.classes


def _import(selected: command_line.Selected) -> None:
    _refuse_configuration("import")
    output = _output(".pth")
    checkpoint = checkpoints.read_checkpoint(selected.path)
    if output.exists() and output.samefile(selected.path):
        raise ValueError(
            "checkpoint: --output must be another file than the one imported,"
            f" which may hold what training goes on from, got {output}"
        )
    weights = checkpoints.state_dict_of(checkpoint, selected.path)
    writing.write_pth(output, weights, facts.kept(checkpoint))
    _say_written(output, checkpoint)


def _inspect(selected: command_line.Selected) -> None:
    _refuse_configuration("inspect")
    json_file = command_line.output_file("json", _JSON.value)
    checkpoint = checkpoints.read_checkpoint(selected.path)
    weights = checkpoints.state_dict_of(checkpoint, selected.path)
    is_safetensors = checkpoints.is_safetensors(selected.path)
    found: dict[str, Any] = {
        "file": str(selected.path),
        "format": "safetensors" if is_safetensors else "torch.save",
        "sha256": checkpoints.sha256(selected.path),
        "own_digest": "verified"
        if checkpoints.has_digest(selected.path)
        else "none in the file",
        **facts.summary(checkpoint, weights),
        "left_out_by_export": facts.left_out(checkpoint),
    }
    if json_file:
        files.write_output(json_file, valid_json.text_of(found).encode())
    print(writing.lines_of(found))


def _refuse_configuration(command: str) -> None:
    for flag in (_CONFIG.gin_file, _CONFIG.gin_param):
        if flag.value:
            raise ValueError(
                f"checkpoint: --{flag.name} must not be given to {command},"
                f" which takes the file as it is, got {flag.value}"
            )


def _output(end: str) -> pathlib.Path:
    output = command_line.output_file("output", _OUTPUT.value)
    if output is None or output.suffix != end:
        raise ValueError(
            f"checkpoint: --output must name a file that ends in {end}, got"
            f" {output or 'none'}"
        )
    return output


def _say_written(output: pathlib.Path, checkpoint: dict[str, Any]) -> None:
    if names := facts.left_out(checkpoint):
        print(f"left out: {', '.join(names)}")
    size = output.stat().st_size / 1e6
    print(f"{output}: {size:.1f} MB, SHA-256 {checkpoints.sha256(output)}")


_COMMANDS = {
    "export": (_export, ("output", "classes", "source", "license")),
    "import": (_import, ("output",)),
    "inspect": (_inspect, ("json",)),
}

if __name__ == "__main__":
    app.run(main)
