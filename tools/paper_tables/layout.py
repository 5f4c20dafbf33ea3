"""Tables of text, laid out for a terminal or as Markdown."""

import dataclasses
import textwrap
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in columns.

    Attributes:
      title: above it.
      columns: their heads; the first one holds names, the others figures.
      rows: as many cells each as there are columns.
      notes: below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def as_text(self) -> str:
        """In columns, the names to the left and the figures to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        texts = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        texts.insert(1, "-" * max(map(len, texts)))
        return "\n".join([self.title, *texts, *self.notes])

    def as_markdown(self) -> str:
        """As a table of Markdown under a heading."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [
            f"| {' | '.join(line)} |"
            for line in (self.columns, rule, *self.rows)
        ]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"## {self.title}\n", *lines, *notes])


def list_as_text(heading: str, points: Sequence[str]) -> str:
    """A list under a heading, in lines of 80 columns."""
    wrapped = [
        textwrap.fill(point, 80, initial_indent="- ", subsequent_indent="  ")
        for point in points
    ]
    return "\n".join([heading, *wrapped])


def list_as_markdown(heading: str, points: Sequence[str]) -> str:
    """The same under a heading of Markdown."""
    return f"## {list_as_text(heading + chr(10), points)}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = zip(cells, widths, strict=True)
    return [
        first[0].ljust(first[1]),
        *(cell.rjust(width) for cell, width in rest),
    ]
