"""Standard output and error of a job that outlives whoever reads them.

A closed terminal, the end of a pipe (`| head`), a full disk under a log: the
job goes on, and what cannot be written is lost.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def outlive_readers() -> None:
    """Makes sys.stdout and sys.stderr ignore that nobody can be written to."""
    sys.stdout = _outliving(sys.stdout, 1)
    sys.stderr = _outliving(sys.stderr, 2)


def _outliving(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        # Closed when the process started: a file opened later could get this
        # number, and all that C libraries print with it.
        _occupy(descriptor)
        stream = open(os.devnull, "w")
        return stream
    raw = _Outliving(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _occupy(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(null, descriptor)
    if null != descriptor:
        os.close(null)


class _Outliving(io.FileIO):
    """Takes what it cannot write as written."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes; the number of bytes that are dealt with."""
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError:
            return size
        # None: a pipe that must not be waited for is full.
        return size if written is None else written
