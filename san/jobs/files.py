"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import shutil

_TEMPORARY_END = ".tmp"


def write_atomically(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a file so that a reader sees the old bytes or all the new ones.

    The bytes go to a temporary file beside the final one, reach the disk and
    only then take its name. A process killed on the way leaves a temporary
    file behind: see remove_temporaries.

    Raises:
      OSError: saying what could not be written and why.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_END}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            f"write: {path} must be writable with"
            f" {len(data) / 2**20:.1f} MiB free, got {error.strerror}"
        ) from error


def remove_temporaries(folder: pathlib.Path) -> None:
    """Removes what killed writers left in a folder that nobody writes to."""
    for leftover in folder.glob(f".*{_TEMPORARY_END}"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _flush_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
