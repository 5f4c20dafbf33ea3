"""Compares runs of //train:main by their work folders.

  bazel run //tools:compare_runs -- runs/one runs/other --output=curves.png

Prints the settings in which they differ, value by value, and a table: epochs
that are done, best and last validation, speed and time. A run that is still
training is compared as far as it is. --output=FILE draws the curves of their
metrics.jsonl: losses and top-1 over epochs; of a run without that file the
checkpoint alone is read. Nothing in the folders is changed.

Exit codes: 0, or 1 if a flag was unknown or the picture could not be written,
or 2 if a folder or a setting was wrong; --verbosity=1 shows the traceback of an
error.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags

from san.jobs import config, entry, files
from tools.compare_runs import plot, report, runs

_OUTPUT = flags.DEFINE_string(
    "output", None, "File to draw the curves into: .png, .svg or .pdf."
)


def main(argv: list[str]) -> int:
    """Runs the job."""
    return entry.run(lambda: _compare(argv[1:]))


def _compare(arguments: Sequence[str]) -> None:
    folders = [pathlib.Path(config.user_path(name)) for name in arguments]
    if len(set(folders)) < max(2, len(folders)):
        raise ValueError(
            "compare_runs: the arguments must be two or more different work"
            f" folders, got {' '.join(arguments) or 'none'}"
        )
    output = _output()
    found = runs.read_all(folders)
    print(report.differences(found))
    print(report.table(found))
    if output:
        picture = plot.draw(found, output.suffix[1:])
        files.write_output(output, picture)


def _output() -> pathlib.Path | None:
    if _OUTPUT.value is None:
        return None
    path = pathlib.Path(config.user_path(_OUTPUT.value))
    if path.suffix not in plot.ENDINGS or not path.parent.is_dir():
        raise ValueError(
            "compare_runs: --output must be a file in an existing folder and"
            f" end in {', '.join(plot.ENDINGS)}, got {path}"
        )
    return path


if __name__ == "__main__":
    app.run(main)
