"""The benchmark's sections, each in a process of its own."""

import pathlib
import shutil
import time
from typing import NamedTuple

from tools import cuda_times
from tools.gpu_check import processes
from tools.gpu_check.carrying import missing_step
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, PASSED, Step

# What decides most comes first.
SECTIONS = ("core", "ops", "models", "relations", "startup", "growth")
_END = 3000  # Characters of a log that are shown where there is no table.


class Wishes(NamedTuple):
    """What the benchmark is told.

    Attributes:
      device: "cuda" or "cpu".
      only: expression that the names of works match.
      quick: fewer rounds and peers.
    """

    device: str
    only: str
    quick: bool


def step_name(section: str) -> str:
    """Of the step that measures a section."""
    return f"measure {section}"


def measure(section: str, place: Place, wishes: Wishes, seconds: float) -> Step:
    """Measures a section, and prints its table.

    Args:
      section: of the benchmark.
      place: where everything is; its output folder gets the table and the
        figures, after each work.
      wishes: what the benchmark is told.
      seconds: it may take; what has been measured by then is kept.

    Returns:
      What came of it.
    """
    start = time.monotonic()
    name = step_name(section)
    log, table = place.fresh(name, "log"), place.fresh(name, "txt")
    command = [*place.python, "-m", "tools.benchmark.main", section]
    command += [f"--device={wishes.device}", f"--only={wishes.only}"]
    figures = place.fresh(name, "json")
    command += [f"--json={figures}", f"--table={table}"]
    command += ["--allow_noise", *(["--quick"] if wishes.quick else [])]
    ended = processes.run(command, log, seconds, place.environment, place.root)
    good = ended.code == 0 and not ended.why and table.exists()
    said = log.read_text(errors="replace")
    seconds = time.monotonic() - start
    step = missing_step(name, said, seconds, place.without)
    if step and not table.exists():
        return step
    if table.exists():
        print(table.read_text(), flush=True)
    if section == "core" and wishes.device == "cuda" and figures.exists():
        print(times_of(figures, place), flush=True)
    if not good:
        print(said[-_END:], flush=True)
    return Step(
        name,
        PASSED if good else FAILED,
        "every work" if good else f"{ended.words}; see {log.name}",
        seconds,
    )


def times_of(figures: pathlib.Path, place: Place) -> str:
    """Writes the table by which networks choose, with what was measured here.

    Args:
      figures: JSON of the section core.
      place: its output folder gets the table, the project keeps its own.

    Returns:
      What came of it, for people.
    """
    table = place.output / pathlib.Path(cuda_times.FILE).name
    shutil.copyfile(place.root / cuda_times.FILE, table)
    try:
        changed = cuda_times.update(table, [figures])
    except ValueError as error:
        return str(error)
    return "\n".join(
        [f"{table}, to be put into {cuda_times.FILE}, says now:", *changed]
    )
