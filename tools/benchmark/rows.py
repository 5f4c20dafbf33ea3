"""A row of a report: one work, one peer, ratios, and what they amount to."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from tools.benchmark import targets
from tools.benchmark.targets import Target

# Of a hardware ceiling between rounds, as a part of it.
LARGEST_DRIFT = 0.15


@dataclasses.dataclass
class Row:
    """What was measured of one work against one peer.

    Attributes:
      work: its name; see targets.py.
      peer: what it is compared with.
      ratios: gain over the peer (or cost, where the target says so), one of
        each round.
      ours: what the work took, with its unit.
      theirs: what the peer took, with its unit.
      unit: of both, such as "ms" or "MB".
      share: part of the rate that the hardware allows, or None.
      target: what it is judged by, or None.
      note: why there are no ratios.
      wrong: the results disagree with the reference.
      noise: how far a hardware ceiling drifted between rounds.
      timed: on a GPU, in which precision both were timed, and whether the
        host's time is in it.
    """

    work: str
    peer: str
    ratios: list[float]
    ours: float | None = None
    theirs: float | None = None
    unit: str = "ms"
    share: float | None = None
    target: Target | None = None
    note: str = ""
    wrong: bool = False
    noise: float = 0.0
    timed: str = ""

    @property
    def median(self) -> float:
        """Median of the ratios; nan without any."""
        return statistics.median(self.ratios) if self.ratios else math.nan

    def verdict(self, largest_drift: float) -> str:
        """One or two words on what the row shows."""
        if not self.ratios:
            return self.note
        if self.target:
            verdict = self.target.verdict(self.median)
        else:
            verdict = "" if self.median >= 1 else "slower"
        if self.noise > largest_drift:
            verdict = f"{verdict} (noisy: {self.noise:.0%})".strip()
        return verdict


def judge(rows: Sequence[Row], device: str) -> list[Row]:
    """Gives rows their targets and adds the rows of several works.

    Args:
      rows: as they were measured.
      device: "cpu" or "cuda".

    Returns:
      The same rows and, after the last row of its works, one for each target
      over several works that were all measured.
    """
    for row in rows:
        row.target = targets.find(device, row.work, row.peer)
    result = list(rows)
    for target in targets.TARGETS:
        parts = [
            row
            for row in rows
            if row.work in target.works and row.peer == target.peer
        ]
        if target.device != device or len(target.works) < 2:
            continue
        if len(parts) == len(target.works) and all(p.ratios for p in parts):
            after = max(
                i for i, row in enumerate(result) if row.work in target.works
            )
            result.insert(after + 1, _geometric_mean(target, parts))
    return result


def _geometric_mean(target: Target, parts: Sequence[Row]) -> Row:
    rounds = zip(*(row.ratios for row in parts), strict=False)
    return Row(
        work=target.summary + ", geometric mean",
        peer=target.peer,
        ratios=[statistics.geometric_mean(ratios) for ratios in rounds],
        target=target,
        noise=max(row.noise for row in parts),
    )
