r"""Tables 9 and 10 of the paper: rotated images, and attacked ones.

Top-1 and top-5 on images rotated by quarters and turned upside-down, for a
network of //train:main:

  bazel run //eval:robustness -- rotations --workdir=runs/san10_pair-digits

and over all angles for several networks, as a figure:

  bazel run //eval:robustness -- rotations --workdir=runs/one \
      --workdir=runs/other --angles=0:360:15 --plot=angles.png

The success of a targeted attack and top-1 under it, on a published network:

  bazel run //eval:robustness -- attack --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth --data_dir=IMAGENET --num_images=1000

--strong adds an attack of 50 steps, five starts and the margin loss: the
paper's two have two and four steps, which few networks survive and which prove
nothing of those that do. --checks adds attacks of more and more steps and in
larger and larger balls: where more is weaker, or the largest ball leaves
anything right, gradients are masked and the figures above mean little. What an
attack does to the bit is printed below its table.

The paper's own figures stand beside those of networks that it has, marked as
published. --json=FILE writes everything: networks[], and in each of them
orientations and angles, or outcomes.

Several processes, one per GPU, start by torchrun or srun. Exit codes: 0,
or 1 if a flag was unknown or a file could not be read or written, or 2 if a
setting or the data was wrong; --verbosity=1 shows the traceback of an error.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

from absl import app, flags

from eval import (
    angles,
    attack_checks,
    attack_report,
    attacks,
    command_line,
    loading,
    rotation_report,
    rotations,
)
from eval.command_line import Selected
from eval.subject import Subject
from san.jobs import entry, files, processes
from san.jobs.flags import define, define_checkpoint, define_json, define_path

_COMMANDS = ("rotations", "attack")
_PLOTS = (".png", ".svg", ".pdf")

_SHARED = define(
    example="Data.image_size=256",
    workdir="Work folder of //train:main, to try its network. Every"
    " --gin_file and --gin_param changes its config.gin. Repeatable.",
    data_dir="Folder with val/CLASS/* images. Default: what the network was"
    " trained on.",
    batch_size="Images at a time, over all processes together. Default: the"
    " recipe's.",
    least_batch=1,
    several=True,
)
_TRAINED = define_checkpoint(several=True)
_JSON = define_json()
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    None,
    "How many of the images to take, evenly from all. Default: all.",
    lower_bound=1,
)
_ANGLES = flags.DEFINE_string(
    "angles",
    None,
    "rotations: further angles, START:STOP:STEP in degrees clockwise, both ends"
    " included, such as 0:360:15.",
)
_FILL = flags.DEFINE_enum(
    "fill",
    "mean",
    rotations.FILLS,
    "rotations: the colour beyond the border of an image that is turned by no"
    " quarter turns, the mean of the training images (Data.mean) or black.",
)
_PLOT = define_path(
    "plot",
    "rotations: file to draw accuracy over angle into, .png, .svg or .pdf.",
)
_STRONG = flags.DEFINE_boolean(
    "strong", False, "attack: also 50 steps, five starts and the margin loss."
)
_CHECKS = flags.DEFINE_boolean(
    "checks", False, "attack: also look for masked gradients."
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "attack: what targets and noise are drawn from.", lower_bound=0
)
_OWN = {
    "rotations": (_ANGLES, _FILL, _PLOT),
    "attack": (_STRONG, _CHECKS, _SEED),
}


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    entry.leave(entry.run(lambda: _run(argv[1:])))


def _run(arguments: list[str]) -> None:
    command = _command(arguments)
    selected = command_line.select(
        _SHARED.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )
    json_file = command_line.output_file("json", _JSON.value)
    try_networks = _rotations if command == "rotations" else _attack
    with processes.process_group() as process:
        text = try_networks(selected, process)
    if json_file and process.is_first:
        files.write_output(json_file, text.encode())


def _command(arguments: list[str]) -> str:
    """The command, whose flags alone are given."""
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        raise ValueError(
            f"robustness: the command must be one of {', '.join(_COMMANDS)},"
            f" got {' '.join(arguments) or 'none'}; see --help"
        )
    (command,) = arguments
    for owner, own in _OWN.items():
        for flag in own:
            if flag.present and owner != command:
                raise ValueError(
                    f"robustness: --{flag.name} must come with {owner},"
                    f" got {command}"
                )
    return command


def _rotations(selected: Sequence[Selected], process: processes.Process) -> str:
    """Prints a table for each network; returns all figures as JSON."""
    degrees, plot = _angles_and_plot()
    found = []
    for subject, trained in _networks(selected, process):
        accuracies = rotations.measure(
            trained, degrees, _FILL.value, _SHARED.batch_size.value
        )
        found.append((subject, accuracies))
        _print(process, rotation_report.as_text(subject, accuracies))
    if plot and process.is_first:
        # Slow to import.
        from eval import rotation_plot

        rotation_plot.draw(plot, found)
    return rotation_report.as_json(found, _FILL.value)


def _attack(selected: Sequence[Selected], process: processes.Process) -> str:
    """Prints a table for each network; returns all figures as JSON."""
    settings = [*attacks.PUBLISHED]
    settings += [attacks.STRONG] if _STRONG.value else []
    settings += attack_checks.ATTACKS if _CHECKS.value else []
    settings = list(dict.fromkeys(settings))
    found = []
    for subject, trained in _networks(selected, process):
        outcomes = attacks.measure(
            trained, settings, _SHARED.batch_size.value, _SEED.value
        )
        found.append((subject, outcomes))
        checks = attack_checks.verdicts(outcomes) if _CHECKS.value else []
        _print(process, attack_report.as_text(subject, outcomes), *checks)
    _print(process, attacks.PROTOCOL, f"Seed {_SEED.value}.")
    return attack_report.as_json(found, _SEED.value)


def _angles_and_plot() -> tuple[list[float], pathlib.Path | None]:
    parsed = [] if _ANGLES.value is None else angles.parse(_ANGLES.value)
    plot = command_line.output_file("plot", _PLOT.value)
    if plot and not parsed:
        raise ValueError(
            "robustness: --plot must come with --angles, which it shows the"
            " accuracies at, got --plot alone"
        )
    if plot and plot.suffix not in _PLOTS:
        raise ValueError(
            f"robustness: --plot must end in {', '.join(_PLOTS)}, got {plot}"
        )
    return parsed, plot


def _networks(
    selected: Sequence[Selected], process: processes.Process
) -> Iterator[tuple[Subject, loading.Trained]]:
    """Each network that was selected, configured and loaded."""
    data_dir = _SHARED.data_dir.value
    for one in selected:
        one.configure(_SHARED.gin_file.value, _SHARED.gin_param.value)
        with loading.load(
            one.path,
            one.workdir,
            str(command_line.user_path(data_dir)) if data_dir else None,
            process,
            _NUM_IMAGES.value,
        ) as trained:
            yield Subject.of(one.label, trained), trained


def _print(process: processes.Process, *texts: str) -> None:
    if process.is_first:
        print("\n".join(texts), end="\n\n", flush=True)


if __name__ == "__main__":
    app.run(main)
