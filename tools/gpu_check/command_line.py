"""The flags of the check."""

import argparse
import pathlib
from collections.abc import Sequence

from tools.gpu_check import measuring
from tools.gpu_check.errors import CheckError

STEPS = ("build", "test", "measure", "carry")


def options_of(
    arguments: Sequence[str], description: str, root: pathlib.Path
) -> argparse.Namespace:
    """The flags, as far as they make sense together.

    Args:
      arguments: of the command line.
      description: of the command.
      root: of the project.

    Returns:
      Each flag's value by its name, and `steps`.

    Raises:
      CheckError: a value is none, or would have no effect.
    """
    parser = argparse.ArgumentParser(
        "gpu_check",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("steps", nargs="*", metavar="step", help=", ".join(STEPS))
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--build_dir", type=pathlib.Path, default=root / "runs/gpu_check")
    add("--output", type=pathlib.Path, help="default: results in --build_dir")
    add(
        "--packages",
        metavar="DIR",
        type=pathlib.Path,
        action="append",
        default=[],
        help="a folder with further Python packages",
    )
    add(
        "--without",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="leave out the tests that need this package, if it is missing",
    )
    add("--tests", default="", help="files or folders, with commas between")
    add("--sections", default=",".join(measuring.SECTIONS))
    add("--only", default="", help="expression that names of works match")
    add("--quick", action="store_true", help="measure with fewer rounds")
    add("--sanitize", action="store_true", help="run compute-sanitizer too")
    add("--seconds", type=float, default=float("inf"), help="for all of it")
    add("--file_seconds", type=float, default=120.0, help="for a test file")
    add("--test_seconds", type=float, default=60.0, help="for one test")
    add("--section_seconds", type=float, default=270.0)
    options = parser.parse_args(arguments)
    options.steps = options.steps or ["build", "test", "measure"]
    options.sections = list(filter(None, options.sections.split(",")))
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    """Refuses what would have no effect."""
    for names, known, what in (
        (options.steps, STEPS, "step"),
        (options.sections, measuring.SECTIONS, "--sections"),
    ):
        for name in names:
            if name not in known:
                raise CheckError(
                    f"{what} must be one of {', '.join(known)}, got {name!r}"
                )
    if options.sanitize and options.device == "cpu":
        raise CheckError("--sanitize must have a GPU, got --device=cpu")
    for flag, step in (
        ("tests", "test"),
        ("only", "measure"),
        ("quick", "measure"),
    ):
        if getattr(options, flag) and step not in options.steps:
            raise CheckError(
                f"--{flag} must go with {step}, which is not asked"
            )
    for flag in ("seconds", "file_seconds", "test_seconds", "section_seconds"):
        if not getattr(options, flag) > 0:
            raise CheckError(
                f"--{flag} must be positive, got {getattr(options, flag)}"
            )
