"""What has been done so far: a table, at every moment on the disk too."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

PASSED = "passed"
FAILED = "FAILED"
LEFT_OUT = "left out"
_NOT_DONE = "NOT DONE"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the check, done.

    Attributes:
      name: of the step.
      verdict: PASSED, FAILED, or LEFT_OUT where the user asked for that.
      words: what came of it, in a line.
      seconds: that it took.
      details: a line for each thing that a person should look at.
    """

    name: str
    verdict: str
    words: str
    seconds: float = 0.0
    details: Sequence[str] = ()


class Summary:
    """The steps of this call, those to come among them.

    Args:
      path: file that has the table after every step.
      planned: names of all steps, in their order.
    """

    def __init__(self, path: pathlib.Path, planned: Sequence[str]) -> None:
        self._path = path
        self._planned = planned
        self._steps: dict[str, Step] = {}
        self._write()

    def add(self, step: Step) -> None:
        """Prints and keeps what came of a step."""
        self._steps[step.name] = step
        self._write()
        print(
            "\n".join(["gpu_check: " + _line(step), *step.details]), flush=True
        )

    @property
    def good(self) -> bool:
        """Whether every step has been done, and none has failed."""
        return not any(self._bad(name) for name in self._planned)

    def table(self) -> str:
        """A line for each step, and the details of the failed ones."""
        lines = []
        for name in self._planned:
            step = self._steps.get(name, Step(name, _NOT_DONE, ""))
            lines.append(_line(step))
            if self._bad(name):
                lines += step.details
        bad = sum(map(self._bad, self._planned))
        end = f"{bad} of {len(self._planned)} steps failed or were not done"
        if not bad:
            left_out = [s.verdict for s in self._steps.values()].count(LEFT_OUT)
            end = "every step passed"
            end += f" but the {left_out} left out" if left_out else ""
        return "\n".join([*lines, end])

    def _bad(self, name: str) -> bool:
        step = self._steps.get(name)
        return step is None or step.verdict == FAILED

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(self.table() + "\n")
        os.replace(new, self._path)


def _line(step: Step) -> str:
    seconds = f"{step.seconds:.0f} s" if step.seconds else ""
    line = f"{step.verdict:8}  {seconds:>5}  {step.name}"
    return f"{line}: {step.words}" if step.words else line
