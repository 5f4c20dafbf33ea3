"""Tables 9 and 10: published, and beside them what //eval:robustness wrote."""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from eval import published
from tools.paper_tables.layout import Table

_TITLES = {
    "9": "Table 9: rotated images, top-1 (top-5)",
    "10": "Table 10: attacked images, success of the attack / top-1",
}
_ORIENTATIONS = ("none", "90", "180", "270", "upside-down")
# Epsilon, step and iterations.
_ATTACKS = ((8, 4, 2), (8, 2, 4))
_LOSS = "cross-entropy"
_PATTERN = "robustness*.json"


def read_reports(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The networks in the files robustness*.json of a folder and below.

    Each gets `report`, the file's path. What //eval:robustness has not written
    is named on stderr.
    """
    networks = []
    for path in sorted(folder.rglob(_PATTERN)):
        try:
            found = json.loads(path.read_text())["networks"]
            found = [{**network, "report": str(path)} for network in found]
            rotations(found)
            attacks(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(
                f"left out: {path}: not of //eval:robustness"
                f" ({type(error).__name__}: {error})",
                file=sys.stderr,
            )
        else:
            networks += found
    return networks


def rotations(networks: Sequence[dict[str, Any]]) -> Table:
    """Table 9, and below the published rows those of our networks."""
    rows = [
        [name, *(f"{top1:.1f} ({top5:.1f})" for top1, top5 in figures)]
        for name, figures in published.ROTATIONS.items()
    ]
    ours = [network for network in networks if "orientations" in network]
    for network in ours:
        results = list(network["orientations"].values())
        if len(results) != len(_ORIENTATIONS):
            raise ValueError(f"{len(results)} orientations")
        cells = [f"{r['top1']:.2f} ({r['top5']:.2f})" for r in results]
        rows.append([_name(network), *cells])
    return Table(_TITLES["9"], ("network", *_ORIENTATIONS), rows, _notes(ours))


def attacks(networks: Sequence[dict[str, Any]]) -> Table:
    """Table 10, and below the published rows those of our networks."""
    rows = [
        [name, *(f"{success:.1f} / {top1:.1f}" for success, top1 in figures)]
        for name, figures in published.ATTACKS.items()
    ]
    ours = [network for network in networks if "outcomes" in network]
    for network in ours:
        found = {_setting(o["attack"]): o for o in network["outcomes"]}
        rows.append([_name(network), *(_outcome(found, a) for a in _ATTACKS)])
    columns = [f"n = {iterations}" for _, _, iterations in _ATTACKS]
    return Table(_TITLES["10"], ("network", *columns), rows, _notes(ours))


def _name(network: dict[str, Any]) -> str:
    return f"measured: {network['network'] or network['label']}"


def _notes(ours: Sequence[dict[str, Any]]) -> list[str]:
    measured = [
        f"{_name(network)}: {network['num_images']} images of"
        f" {network['num_classes']} classes, {network['report']}"
        for network in ours
    ]
    return [published.NOTE, *measured]


def _setting(attack: dict[str, Any] | None) -> tuple[float, ...] | None:
    # A stronger attack of as many steps is not the paper's.
    if attack is None or attack["starts"] != 1 or attack["loss"] != _LOSS:
        return None
    return (attack["epsilon"], attack["step"], attack["iterations"])


def _outcome(found: dict[Any, dict[str, Any]], setting: Any) -> str:
    outcome = found.get(setting)
    if outcome is None:
        return ""
    return f"{outcome['success']:.2f} / {outcome['top1']:.2f}"
