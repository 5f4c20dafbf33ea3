"""Prints the paper's tables: counted, published and measured figures.

  bazel run //tools:paper_tables
  bazel run //tools:paper_tables -- --table=4 --runs=runs/ablation

Tables 1 and 3 to 10 and the row of section 5.3 of "Exploring Self-attention for
Image Recognition", CVPR 2020; at the end, what the paper leaves open and what
was chosen. Parameters and MACs are counted, and rounded as the paper rounds
them; accuracies are the published ones. --runs=FOLDER adds those of work
folders of //train:main and //train:ablation anywhere in it, after the last
epoch, and of files robustness*.json of //eval:robustness.

--json=FILE writes rows (row, table, parameters, macs, honest_macs,
printed_parameters, printed_macs, published_top1, published_top5, measured: null
or top1, top5, num_images, data, epochs, size and runs), robustness and
left_open. Exit codes: 0, or 1 if a flag was unknown or a file could not be
written, or 2 if a setting was wrong; --verbosity=1 shows the traceback of an
error.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

import san
from san.jobs import config, entry, files, valid_json
from tools.paper_tables import layout, left_open, robustness
from tools.paper_tables.architectures import architectures
from tools.paper_tables.counted import TITLES, counted
from tools.paper_tables.figures import Figures, count
from tools.paper_tables.runs import find_runs

_TABLES = ("1", "3", "4", "5", "5.3", "6", "7", "8", "9", "10")

_TABLE = flags.DEFINE_list(
    "table", None, "Tables to print, such as 4,8. Default: all."
)
_RUNS = flags.DEFINE_string(
    "runs", None, "Folder of work folders, whose accuracies to print."
)
_FORMAT = flags.DEFINE_enum(
    "format", "text", ["text", "markdown"], "What to print."
)
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")


def main(argv: list[str]) -> int:
    """Runs the job."""
    return entry.run(lambda: _print_tables(argv[1:]))


def _print_tables(arguments: Sequence[str]) -> None:
    entry.check_no_arguments(arguments)
    numbers, json_file = _numbers(), _json_file()
    folder = _RUNS.value and pathlib.Path(config.user_path(_RUNS.value))
    runs = find_runs(folder) if folder else []
    reports = robustness.read_reports(folder) if folder else []
    rows = [row for row in san.paper_rows() if row.table in numbers]
    figures = count(rows, runs)
    print(_text(_tables(numbers, figures, reports)))
    if json_file:
        content = {
            "rows": [row.as_json() for row in figures],
            "robustness": reports,
            "left_open": left_open.POINTS,
        }
        text = valid_json.text_of(content)
        files.write_output(json_file, text.encode())


def _tables(
    numbers: Sequence[str],
    figures: Sequence[Figures],
    reports: Sequence[dict[str, Any]],
) -> list[layout.Table]:
    makers: dict[str, Callable[[], layout.Table]] = {
        "1": architectures,
        "9": lambda: robustness.rotations(reports),
        "10": lambda: robustness.attacks(reports),
    }
    for number in TITLES:
        own = [row for row in figures if row.row.table == number]
        makers[number] = functools.partial(counted, number, own)
    return [makers[number]() for number in numbers]


def _text(tables: Sequence[layout.Table]) -> str:
    points = (left_open.HEADING, left_open.POINTS)
    if _FORMAT.value == "markdown":
        parts = [table.as_markdown() for table in tables]
        return "\n\n".join([*parts, layout.list_as_markdown(*points)])
    parts = [table.as_text() for table in tables]
    return "\n\n".join([*parts, layout.list_as_text(*points)])


def _numbers() -> list[str]:
    """The tables that are asked for, in the paper's order."""
    asked = _TABLE.value if _TABLE.value is not None else _TABLES
    unknown = [number for number in asked if number not in _TABLES]
    if unknown or not asked:
        raise ValueError(
            f"paper_tables: --table must be of {', '.join(_TABLES)}, got"
            f" {', '.join(unknown) or 'none'}"
        )
    return [number for number in _TABLES if number in asked]


def _json_file() -> pathlib.Path | None:
    if _JSON.value is None:
        return None
    path = pathlib.Path(config.user_path(_JSON.value))
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            "paper_tables: --json must be a file in an existing folder, got"
            f" {path}"
        )
    return path


if __name__ == "__main__":
    app.run(main)
