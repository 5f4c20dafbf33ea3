"""Looks into image files before they are used: of what kind, of what size.

One undecodable file ends a whole DALI pipeline hours into an epoch, so those
that can be told without decoding are found first: things that are no files,
other formats, JPEG processes that are not decoded, files cut off. Reads
headers and ends. Damaged pixels are found by decoding alone, which
//tools:data_doctor does. The sizes found are kept in a cache file.
"""

import concurrent.futures
import os
import stat
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from san.data import headers
from san.data.errors import DataError
from san.data.listing import NUM_THREADS, File
from san.data.problems import Problem
from san.data.progress import Progress
from san.data.size_cache import SizeCache

_CHUNK = 256  # Files that a thread takes at once.
_SAVE_SECONDS = 30.0  # Between two writings of the cache.

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a named pipe, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
}


def look_at(
    root: str,
    files: Sequence[File],
    *,
    cache: str | None = None,
    show_progress: bool = True,
) -> tuple[np.ndarray, list[Problem]]:
    """Looks into files; goes on where it was stopped before.

    Args:
      root: the folder that the paths are relative to.
      files: the files.
      cache: file that keeps each size until the image changes.
      show_progress: show how far it is if it takes long.

    Returns:
      Heights and widths in pixels, int64 [n, 2], 0 for what cannot be used;
      and what cannot be used, in the order of `files`.
    """
    kept = SizeCache(cache, files) if cache else None
    sizes = kept.read() if kept else np.zeros((len(files), 2), np.int64)
    unknown = np.flatnonzero(sizes[:, 0] == 0)
    if not len(unknown):
        return sizes, []
    bad: list[Problem] = []
    saved = time.monotonic()
    try:
        with Progress(
            "looking at the images", len(unknown), shown=show_progress
        ) as progress:
            for chunk, found, worse in _measured(root, files, unknown):
                sizes[chunk] = found
                bad += worse
                progress.advance(len(chunk))
                if kept and time.monotonic() - saved > _SAVE_SECONDS:
                    kept.write(sizes)
                    saved = time.monotonic()
    finally:
        if kept:
            kept.write(sizes)
    return sizes, bad


def measure(root: str, file: File) -> tuple[int, int]:
    """Height and width of one image file; opens regular files only.

    Args:
      root: the folder that its path is relative to.
      file: the file.

    Returns:
      Height and width in pixels.

    Raises:
      DataError: why the file cannot be used, without its name.
    """
    path = os.path.join(root, file.path)
    if file.kind not in (0, stat.S_IFREG):
        raise DataError(_KINDS.get(file.kind, "is not a file"))
    if not file.kind and os.path.islink(path) and not os.path.exists(path):
        raise DataError(f"is a link to {os.readlink(path)}, which is not there")
    try:
        # Does not wait if it has become a pipe since it was listed.
        with open(path, "rb", opener=_open_without_waiting) as content:
            status = os.fstat(content.fileno())
            return headers.size(content, status.st_size)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


_Chunk = tuple[np.ndarray, np.ndarray, list[Problem]]


def _measured(
    root: str, files: Sequence[File], numbers: np.ndarray
) -> Iterator[_Chunk]:
    """Numbers of files, their sizes and the problems, chunk by chunk."""
    Image.init()  # Loads the readers before the threads need them.

    def of_chunk(chunk: np.ndarray) -> _Chunk:
        found = np.zeros((len(chunk), 2), np.int64)
        bad = []
        for size, number in zip(found, chunk, strict=True):
            try:
                size[:] = measure(root, files[number])
            except DataError as error:
                bad.append(Problem(files[number].path, str(error)))
        return chunk, found, bad

    chunks = [
        numbers[start : start + _CHUNK]
        for start in range(0, len(numbers), _CHUNK)
    ]
    pool = concurrent.futures.ThreadPoolExecutor(NUM_THREADS)
    try:
        yield from pool.map(of_chunk, chunks)
    finally:
        # Somebody who stops the job should not wait for the other chunks.
        pool.shutdown(cancel_futures=True)
