"""Tables 3 to 8 and the row of section 5.3: counted, published, measured."""

from collections.abc import Sequence

from tools.paper_tables.figures import Figures, rounded
from tools.paper_tables.layout import Table

TITLES = {
    "3": "Table 3: the main table",
    "4": "Table 4: relations, in SAN10",
    "5": "Table 5: mappings gamma, in SAN10 (L linear, R ReLU)",
    "5.3": "Section 5.3: scalar attention, in SAN10",
    "6": "Table 6: transformations, in SAN10",
    "7": "Table 7: footprints, in SAN10 and ResNet26",
    "8": "Table 8: positions, in SAN10",
}

_COUNTS = (
    "parameters",
    "M",
    "printed M",
    "MACs",
    "G",
    "printed G",
    "honest MACs",
)
_PUBLISHED = ("published top-1", "published top-5")
_MEASURED = ("measured top-1", "measured top-5", "measured on")
_NOT_MEASURED = ("", "", "")
_ON_VALIDATION = "ImageNet's validation images"
_HELD_OUT = "50 images of each class held out of ImageNet's training images"


def counted(number: str, figures: Sequence[Figures]) -> Table:
    """One of the tables.

    Args:
      number: of TITLES.
      figures: of the table's rows.
    """
    images = _ON_VALIDATION if number == "3" else _HELD_OUT
    notes = [
        f"published: by the paper's authors, on {images}; not measured here"
    ]
    are_measured = any(row.measured for row in figures)
    if are_measured:
        notes.append("measured: here, after the last epoch")
    return Table(
        TITLES[number],
        ("row", *_COUNTS, *_PUBLISHED, *_MEASURED * are_measured),
        [_cells(row, are_measured) for row in figures],
        notes,
    )


def _cells(figures: Figures, are_measured: bool) -> list[str]:
    row, cost, ours = figures.row, figures.cost, figures.measured
    cells = [
        row.row,
        _number(cost.parameters),
        str(rounded(cost.parameters, 10**6)),
        f"{row.printed_parameters:.1f}",
        _number(cost.macs),
        str(rounded(cost.macs, 10**9)),
        f"{row.printed_macs:.1f}",
        _number(cost.honest_macs),
        f"{row.published_top1:.1f}",
        f"{row.published_top5:.1f}",
    ]
    if ours:
        cells += [f"{ours.top1:.2f}", f"{ours.top5:.2f}", ours.as_text()]
    elif are_measured:
        cells += _NOT_MEASURED
    return cells


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")
