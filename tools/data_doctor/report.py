"""What was found, as a table for people and as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from san.jobs import valid_json
from tools.data_doctor.kinds import KINDS, Finding

_MAX_LISTED = 20  # Problems of one kind, on the screen.


def as_text(
    root: str, num_files: Mapping[str, int], findings: Sequence[Finding]
) -> str:
    """A table of kinds, and below it what each problem is.

    Args:
      root: the data folder.
      num_files: in each split.
      findings: all that were found.
    """
    counts = ", ".join(f"{n:,} in {split}" for split, n in num_files.items())
    lines = [f"{_shown(root)}: files: {counts or 'none'}"]
    lines += _table(findings)
    for name, kind in KINDS.items():
        if kind.is_problem:
            lines += _listed(kind.title, _of_kind(findings, name))
    num_problems = sum(found.is_problem for found in findings)
    num_notes = len(findings) - num_problems
    return "\n".join(
        [*lines, "", f"problems: {num_problems}, to be known: {num_notes}"]
    )


def _table(findings: Sequence[Finding]) -> list[str]:
    rows = []
    for name, kind in KINDS.items():
        if of_kind := _of_kind(findings, name):
            splits = [found.split for found in of_kind]
            excluded = sum(found.excluded for found in of_kind)
            counts = (splits.count("train"), splits.count("val"), excluded)
            sign = "!" if kind.is_problem else " "
            cells = "".join(f"{count:>10,}" for count in counts)
            rows.append(f"{sign} {kind.title:<44}{cells}")
    if not rows:
        return ["nothing found"]
    titles = ("train", "val", "excluded")
    return ["", f"{'':46}" + "".join(f"{title:>10}" for title in titles), *rows]


def _listed(title: str, of_kind: Sequence[Finding]) -> list[str]:
    if not of_kind:
        return []
    lines = [
        f"  {_shown(found.path)}: {_shown(found.detail)}"
        for found in of_kind[:_MAX_LISTED]
    ]
    more = len(of_kind) - _MAX_LISTED
    if more > 0:
        lines.append(f"  and {more:,} more, which --json=FILE lists")
    return ["", title, *lines]


def as_json(
    root: str, num_files: Mapping[str, int], findings: Sequence[Finding]
) -> str:
    """Every finding.

    Args:
      root: the data folder.
      num_files: in each split.
      findings: all that were found.
    """
    problems = sum(found.is_problem for found in findings)
    content: dict[str, Any] = {
        "data_dir": root,
        "num_files": dict(num_files),
        "num_problems": problems,
        "num_notes": len(findings) - problems,
        "findings": [
            {**found._asdict(), "is_problem": found.is_problem}
            for found in findings
        ],
    }
    return valid_json.text_of(content)


def _of_kind(findings: Sequence[Finding], name: str) -> list[Finding]:
    return [found for found in findings if found.kind == name]


def _shown(text: str) -> str:
    """A text of any bytes in one line that every terminal takes."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable.replace("\n", "\\n").replace("\r", "\\r")
