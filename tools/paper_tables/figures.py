"""What the rows of the tables cost, counted, beside what the paper prints."""

import dataclasses
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import torch
import tqdm

import san
from san.networks.row_networks import RowNetwork
from tools.paper_tables.runs import Measured, Run, measured

_IMAGE = (3, 224, 224)


@dataclasses.dataclass(frozen=True)
class Figures:
    """A row of the paper, counted and perhaps measured.

    Attributes:
      row: as the paper has it.
      cost: of the network at 224 x 224 with 1000 classes.
      measured: in runs of ours, if there are any.
    """

    row: san.PaperRow
    cost: san.Cost
    measured: Measured | None

    def as_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return {
            **dataclasses.asdict(self.row),
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "honest_macs": self.cost.honest_macs,
            "measured": self.measured and dataclasses.asdict(self.measured),
        }


def count(rows: Sequence[san.PaperRow], runs: Sequence[Run]) -> list[Figures]:
    """Counts the networks of some rows, each once; shows how far it is.

    Args:
      rows: of the paper.
      runs: of ours.

    Raises:
      ValueError: if the runs of a row cannot be compared with each other.
    """
    networks = {row.row: RowNetwork.of(row.row) for row in rows}
    costs = {
        network: _cost(name)
        for network, name in tqdm.tqdm(
            {network: name for name, network in networks.items()}.items(),
            desc="counting",
            leave=False,
            disable=None,
        )
    }
    return [
        Figures(row, costs[networks[row.row]], measured(row, runs))
        for row in rows
    ]


def rounded(value: int, unit: int) -> Decimal:
    """A count as the paper prints it: rounded to two decimals, then to one.

    Args:
      value: such as 2_045_828_494 MACs, which are printed as 2.1.
      unit: 10**6 or 10**9.
    """
    figure = Decimal(value) / unit
    for step in ("0.01", "0.1"):
        figure = figure.quantize(Decimal(step), ROUND_HALF_UP)
    return figure


def _cost(name: str) -> san.Cost:
    with torch.device("meta"):
        return san.count_cost(san.create_model(name), _IMAGE)
