r"""Lists of images to leave out: Data.exclude reads them.

A text file with one path per line, relative to the data folder, such as
train/n01440764/n01440764_10026.JPEG. `\n`, `\r` and `\\` stand for a newline, a
carriage return and a backslash in a name. Empty lines say nothing.
"""

import os
import re
from collections.abc import Iterable

from san.data.errors import DataError

_CODES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_NAMES = {code: character for character, code in _CODES.items()}


def as_text(paths: Iterable[str]) -> bytes:
    """The content of a list.

    Args:
      paths: of the images, relative to the data folder.
    """
    lines = [re.sub(r"[\\\n\r]", lambda m: _CODES[m[0]], p) for p in paths]
    return os.fsencode("".join(f"{line}\n" for line in lines))


def read(file: str, root: str) -> list[str]:
    """The paths in a list.

    Args:
      file: of the list, absolute, starting with ~, or relative to `root`.
      root: the data folder.

    Returns:
      Paths relative to the data folder, in the list's order.

    Raises:
      DataError: the list cannot be read, or a line is no path of an image.
    """
    location = os.path.join(root, os.path.expanduser(file))
    try:
        with open(location, "rb") as content:
            lines = os.fsdecode(content.read()).split("\n")
    except OSError as error:
        raise DataError(
            f"Data: exclude must name a file that can be read, got {location}"
            f" ({error.strerror})"
        ) from error
    return [
        _path(line.removesuffix("\r"), location, number)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _path(line: str, location: str, number: int) -> str:
    path = re.sub(r"\\[nr\\]", lambda m: _NAMES[m[0]], line)
    if path.count("/") < 2 or not path.startswith(("train/", "val/")):
        raise DataError(
            "Data: exclude must list paths such as train/CLASS/NAME, got"
            f" {line!r} in line {number} of {location}"
        )
    return path
