"""The record of a test file: JSON objects, a line each, as things happen.

Written by recorder.py within pytest, read by testing.py outside.
"""

import json
import pathlib
from typing import Any


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The events in a file; a last line that was cut off is none."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def write(path: pathlib.Path, **event: Any) -> None:
    """Adds an event to a file, for good."""
    with path.open("a") as file:
        file.write(json.dumps(event) + "\n")
