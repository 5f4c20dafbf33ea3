"""What the decoders' C libraries say on stderr about one image."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_PREFIX = re.compile(r"^\s*\[ERROR\]\s*\[\w+\]\s*")

# Of libjpeg's warnings those that mean wrong or missing pixels.
_ENDS_EARLY = re.compile(r"premature end of", re.IGNORECASE)
_CORRUPT = re.compile(r"Corrupt JPEG data: .*")


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Keeps what is written to stderr in the meantime.

    Yields:
      A list that holds the lines afterwards.
    """
    lines: list[str] = []
    sys.stderr.flush()
    screen = os.dup(2)
    memory = os.memfd_create("stderr")
    os.dup2(memory, 2)
    try:
        yield lines
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        size = os.lseek(memory, 0, os.SEEK_END)
        text = os.pread(memory, size, 0).decode(errors="replace")
        os.close(memory)
        text = _COLOURS.sub("", text)
        lines += [_PREFIX.sub("", line) for line in text.splitlines() if line]


def ends_early(lines: list[str]) -> bool:
    """Whether a JPEG was decoded up to a premature end only."""
    return any(map(_ENDS_EARLY.search, lines))


def corruption(lines: list[str]) -> str | None:
    """The warning of corrupt data, if there was one."""
    return next((m[0] for line in lines if (m := _CORRUPT.search(line))), None)
