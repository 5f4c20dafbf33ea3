"""Which runs an ablation consists of: rows, seeds and folds."""

import dataclasses
import difflib
from collections.abc import Sequence

import san
from san import PaperRow


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      row: name of the row of the paper.
      seed: the recipe's.
      fold: the digits'; None where the data has no folds.
    """

    row: str
    seed: int
    fold: int | None

    @property
    def folder(self) -> str:
        """Its work folder, within the ablation's."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.row.replace('/', '-')}/seed{self.seed}{fold}"

    @property
    def bindings(self) -> list[str]:
        """What distinguishes it from other runs, as gin bindings."""
        bindings = [
            f"create_model.name = {self.row!r}",
            f"Recipe.seed = {self.seed}",
        ]
        if self.fold is not None:
            bindings.append(f"digits.fold = {self.fold}")
        return bindings


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of an ablation.

    Attributes:
      rows: of the paper.
      num_seeds: runs of each row and fold, with seeds from 0.
      num_folds: folds of the data; 0 where it has none.
    """

    rows: Sequence[PaperRow]
    num_seeds: int
    num_folds: int

    @property
    def runs(self) -> list[Run]:
        """The runs, in the order in which they are trained."""
        return [
            Run(row.row, seed, fold)
            for row in self.rows
            for seed in range(self.num_seeds)
            for fold in self.folds
        ]

    @property
    def folds(self) -> Sequence[int | None]:
        """The folds of a row and seed."""
        return range(self.num_folds) if self.num_folds else (None,)

    def place(self, run: Run) -> str:
        """Where in the plan a run stands, for people."""
        names = [row.row for row in self.rows]
        place = (
            f"row {names.index(run.row) + 1} of {len(names)},"
            f" seed {run.seed + 1} of {self.num_seeds}"
        )
        if run.fold is not None:
            place += f", fold {run.fold + 1} of {self.num_folds}"
        return place


def find_rows(
    tables: Sequence[str], kind: str | None, names: Sequence[str]
) -> list[PaperRow]:
    """The rows of the paper that were asked for, in its order.

    Args:
      tables: of these tables; empty for all.
      kind: of this kind; None for all.
      names: of these names, whole or the last part; empty for all.

    Raises:
      ValueError: if a name fits no row, or no row is all that was asked for.
    """
    _check_tables(tables)
    found = [
        row
        for row in san.paper_rows()
        if (not tables or row.table in tables) and kind in (None, row.kind)
    ]
    for name in names:
        _check_name(name, found)
    if names:
        found = [row for row in found if {row.row, row.label} & set(names)]
    if not found:
        raise ValueError(
            "ablation: --kind must be one that --table has, got"
            f" {kind} of table {', '.join(tables)}"
        )
    return found


def _check_tables(tables: Sequence[str]) -> None:
    known = list(dict.fromkeys(row.table for row in san.paper_rows()))
    for table in tables:
        if table not in known:
            raise ValueError(
                f"ablation: --table must be of {', '.join(known)}, got"
                f" {table!r}"
            )


def _check_name(name: str, rows: Sequence[PaperRow]) -> None:
    known = [part for row in rows for part in (row.label, row.row)]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise ValueError(
            "ablation: --rows must be among"
            f" {', '.join(row.label for row in rows) or 'none'}, got {name!r}"
            + "".join(f"; the nearest is {near!r}" for near in nearest)
        )
