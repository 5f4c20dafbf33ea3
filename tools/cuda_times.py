"""Says which attention blocks are computed fused on a GPU: by their times.

  bazel run //tools:cuda_times -- cores.json

takes the times of fused and unfused cores from JSON files into
san/attention/cuda_times.py, by which the backend "fastest" decides: what
//tools:benchmark -- core has measured on a GPU, as tools/gpu_check keeps it, or
what //tools:cuda_report has modelled. Rows that no file is of stay. Prints what
has changed.
"""

import ast
import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

FILE = "san/attention/cuda_times.py"

# Kind, footprint, channels of relation and value, type, pass.
Key = tuple[str, int, int, int, str, str]
# Ms fused, ms unfused, basis.
Row = tuple[float, float, str]

_SIZES = {0: (3, 4, 16)} | {n: (7, 8 << n, 32 << n) for n in range(1, 5)}
_PASSES = {"forward": "inference", "training": "training"}
_WORK = re.compile(r"(pair|patch)wise core (inference|training), layer (\d)")
_DIGITS = 3

_TEXT = """\"\"\"How long the attention's cores take on a GPU, fused and unfused.

Of 64 images at the sizes of SAN10. Written by //tools:cuda_times, read by
`faster`.
\"\"\"

# Where rows come from; a model is what no GPU has been asked.
BASES = [
{bases}]

# Kind, footprint, channels of relation and value, type, pass; ms fused, ms
# unfused, number of the basis.
ROWS = (
{rows})
"""


def rows_of(content: dict[str, Any], name: str) -> dict[Key, Row]:
    """What a file says of fused and unfused cores.

    Args:
      content: what cuda_report's or benchmark's --json has written.
      name: what it is called in the basis.

    Returns:
      The rows, by what they are of.

    Raises:
      ValueError: if it is neither, or not of a GPU, or of nothing of the kind.
    """
    if str(content.get("kind", "")).startswith("cuda_report"):
        found = _modelled(content, name)
    elif "rows" in content and content.get("GPU"):
        found = _measured(content, name)
    else:
        raise ValueError(
            f"cuda_times: {name} must be JSON of //tools:cuda_report, or of"
            " //tools:benchmark's section core on a GPU, got neither"
        )
    if not found:
        raise ValueError(
            f"cuda_times: {name} must have cores fused and unfused, got none"
        )
    return found


def _modelled(content: dict[str, Any], name: str) -> dict[Key, Row]:
    basis = f"a model of an {content['device']}, {name}"
    return {
        (
            total["group"].removesuffix(" core"),
            *_SIZES[total["layer"]],
            total["type_name"],
            _PASSES[total["passed"]],
        ): (
            _ms(1e3 * total["seconds"]),
            _ms(1e3 * total["eager_seconds"]),
            basis,
        )
        for total in content["totals"]
        if total["layer"] is not None
        and total["passed"] in _PASSES
        and total["seconds"] is not None
        and total["eager_seconds"] is not None
    }


def _measured(content: dict[str, Any], name: str) -> dict[Key, Row]:
    """The section measures in float32."""
    day = content["date"].split("T")[0]
    basis = f"measured on {content['GPU']}, {day}, {name}"
    found: dict[Key, Row] = {}
    for row in content["rows"]:
        work = _WORK.fullmatch(row["work"])
        if not work or row["peer"] != "unfused" or row["wrong"]:
            continue
        if row["ours"] and row["theirs"]:
            kind, passed, layer = work.groups()
            key = (f"{kind}wise", *_SIZES[int(layer)], "float32", passed)
            found[key] = _ms(row["ours"]), _ms(row["theirs"]), basis
    return found


def _ms(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def read(path: pathlib.Path) -> dict[Key, Row]:
    """The rows of a file that `write` has written; nothing of it is run."""
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
    }
    bases = values["BASES"]
    return {row[:6]: (*row[6:8], bases[row[8]]) for row in values["ROWS"]}


def write(path: pathlib.Path, rows: dict[Key, Row]) -> None:
    """Writes the file, as ruff would format it."""
    ordered = sorted(rows.items(), key=_order)
    bases = list(dict.fromkeys(basis for _, (*_, basis) in ordered))
    lines = [
        ", ".join(map(_literal, (*key, fused, unfused, bases.index(basis))))
        for key, (fused, unfused, basis) in ordered
    ]
    text = _TEXT.format(
        bases="".join(f"    {_literal(basis)},\n" for basis in bases),
        rows="".join(f"    ({line}),\n" for line in lines),
    )
    path.write_text(text)


def _content(file: pathlib.Path) -> dict[str, Any]:
    """What a JSON file says; nothing, if it is no JSON or of another kind."""
    try:
        content = json.loads(file.read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _order(item: tuple[Key, Row]) -> tuple[Any, ...]:
    kind, _, _, channels, type_name, passed = item[0]
    return kind, type_name != "float32", passed, channels


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def update(path: pathlib.Path, files: Sequence[pathlib.Path]) -> list[str]:
    """Takes the rows of files into the table; others stay as they are.

    Args:
      path: the table.
      files: JSON; of two that are of the same row, the later counts.

    Returns:
      For each row that is new or other, what it says now.

    Raises:
      ValueError: if a file is of no use; the table stays as it was.
    """
    before = read(path)
    after = dict(before)
    for file in files:
        after |= rows_of(_content(file), f"{file.parent.name}/{file.name}")
    if after != before:
        write(path, after)
    return [
        f"{' '.join(map(str, key))}: fused {row[0]:g} ms, unfused {row[1]:g}"
        for key, row in sorted(after.items(), key=_order)
        if before.get(key) != row
    ]


def main() -> int:
    """Runs the command; 2 if a file is of no use."""
    here = pathlib.Path(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    workspace = pathlib.Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", "."))
    files = [here / name for name in sys.argv[1:]]
    try:
        if not files:
            raise ValueError("cuda_times: arguments must be files, got none")
        changed = update(workspace / FILE, files)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(changed or ["nothing has changed"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
