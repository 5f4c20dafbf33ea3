"""Looks into image files before they are used: whole, and of what size.

One undecodable file ends a whole DALI pipeline hours into an epoch, so all
of them are found first. Reads headers and last bytes, not pixels, unless a
file looks cut off. The sizes found are kept in a cache file.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import tempfile
import zipfile
from typing import BinaryIO, NamedTuple

import numpy as np
import tqdm
from PIL import Image

from san.data.errors import DataError, first_few

NUM_THREADS = 16  # They mostly wait for the file system.

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # What PIL and DALI decode alike.

# What a whole file has near its end; by PIL's format names (MPO is a JPEG
# file with further pictures after the first).
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL_BYTES = 64

_CHUNK = 256  # Files that a thread takes at once.


class File(NamedTuple):
    """A file: its path relative to the data folder, and its state."""

    path: str
    num_bytes: int
    mtime_ns: int


def image_sizes(
    root: str,
    files: list[File],
    *,
    cache: str | None = None,
    show_progress: bool = True,
) -> np.ndarray:
    """Heights and widths of image files: int64 [n, 2].

    Args:
      root: the folder that the paths are relative to.
      files: the image files.
      cache: file that keeps the result until one of the files changes.
      show_progress: show a bar if it takes long.

    Returns:
      Height and width in pixels, in the order of `files`.

    Raises:
      DataError: some files are no whole images; names the first ones.
    """
    if cache is None:
        return _measure_all(root, files, show_progress)
    key = _fingerprint(files)
    sizes = _read_cache(cache, key)
    if sizes is None:
        sizes = _measure_all(root, files, show_progress)
        # A folder that cannot be written to costs time, not the job.
        with contextlib.suppress(OSError):
            _write_cache(cache, key, sizes)
    return sizes


def measure(path: str) -> tuple[int, int]:
    """Height and width of one image file.

    Args:
      path: of the file.

    Returns:
      Height and width in pixels.

    Raises:
      DataError: why the file cannot be used, without its name.
    """
    if os.path.isdir(path):
        raise DataError("is a folder")
    try:
        with open(path, "rb") as file:
            return _measure(file)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error


def _measure(file: BinaryIO) -> tuple[int, int]:
    num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes == 0:
        raise DataError("is empty")
    try:
        image = Image.open(file, formats=_FORMATS)
    except Exception as error:
        # PIL's readers raise whatever goes wrong in them, of many types.
        raise DataError(
            "is not a JPEG, PNG, BMP or WebP image, or damaged"
        ) from error
    width, height = image.size
    end = _ENDS.get(image.format or "")
    file.seek(max(0, num_bytes - _TAIL_BYTES))
    if end is None or end not in file.read():
        file.seek(0)
        try:
            image.load()
        except Exception as error:
            raise DataError("is cut off or damaged") from error
    return height, width


def _measure_all(
    root: str, files: list[File], show_progress: bool
) -> np.ndarray:
    Image.init()  # Loads the readers before the threads need them.
    sizes = np.zeros((len(files), 2), np.int64)
    problems: list[str] = []

    def measure_chunk(start: int) -> int:
        chunk = files[start : start + _CHUNK]
        for i, file in enumerate(chunk, start):
            path = os.path.join(root, file.path)
            try:
                sizes[i] = measure(path)
            except DataError as error:
                problems.append(f"{path} {error}")
        return len(chunk)

    with (
        concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool,
        tqdm.tqdm(
            total=len(files),
            desc="looking at the images",
            unit=" images",
            delay=2,
            leave=False,
            disable=not show_progress,
        ) as bar,
    ):
        for count in pool.map(measure_chunk, range(0, len(files), _CHUNK)):
            bar.update(count)
    if problems:
        raise DataError(
            f"{first_few(sorted(problems), '; ')}: class folders must hold"
            " whole image files only; replace or remove"
            f" {'it' if len(problems) == 1 else 'them'}"
        )
    return sizes


def _fingerprint(files: list[File]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(repr(file).encode())
    return digest.hexdigest()


def _read_cache(path: str, key: str) -> np.ndarray | None:
    try:
        with np.load(path) as cache:
            return cache["sizes"] if str(cache["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # None there yet, or not one of ours: look again.


def _write_cache(path: str, key: str, sizes: np.ndarray) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # Written beside and renamed, so that a cache is whole or not there.
    with tempfile.TemporaryDirectory(
        dir=folder, prefix=".cache_", suffix=".tmp"
    ) as work:
        new = os.path.join(work, "new.npz")
        np.savez(new, key=key, sizes=sizes)
        os.replace(new, path)
