"""metrics.jsonl: every figure of a run, a JSON object in each line."""

import json
import pathlib
from typing import IO, Any

from san.jobs import valid_json
from train.sinks import Point, Sink


class Metrics(Sink):
    """Appends a line for each log and each validation.

    A run that goes on from a checkpoint cuts off what an earlier one wrote
    beyond it.
    """

    content = "metrics"

    def __init__(self, path: pathlib.Path, epoch: int, step: int):
        """Prepares to write.

        Args:
          path: of the file.
          epoch: epochs that are done.
          step: steps that are done of the next.
        """
        self.path = path
        self._start: tuple[int, int] | None = (epoch, step)
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        """Opens the file behind the last line that stays."""
        self._file = open(self.path, "ab")
        content = self.path.read_bytes()
        self._file.truncate(self._end(content.splitlines(keepends=True)))
        self._start = None

    def draw(self, point: Point) -> None:
        """Adds a line."""
        assert self._file is not None
        line = {
            "kind": point.kind,
            **point.place,
            "global_step": point.step,
            **point.figures,
        }
        self._file.write(valid_json.line_of(line).encode())
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _end(self, lines: list[bytes]) -> int:
        """How many bytes of the file stay."""
        end = 0
        for line in lines:
            if self._is_beyond(_parsed(line)):
                return end
            end += len(line)
        if lines and _parsed(lines[-1]) is None:
            end -= len(lines[-1])  # Of a run that was killed in the middle.
        return end

    def _is_beyond(self, line: dict[str, Any] | None) -> bool:
        """Whether a line is of what is now trained again.

        Not the global step decides, which changes with the batch size.
        """
        if self._start is None:
            return False
        match line:
            case {"kind": "train", "epoch": int(epoch), "step": int(step)}:
                return (epoch - 1, step) > self._start
            case {"kind": "validation", "epoch": int(epoch)}:
                return epoch > self._start[0]
        return False


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of the file, without any that are not whole.

    Raises:
      OSError: if the file cannot be read.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    return [line for line in map(_parsed, lines) if line is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's object; None of what is not a whole one."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
