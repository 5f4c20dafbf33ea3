"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import pathlib
import shutil

_TEMPORARY_END = ".tmp"

_MISSING_CALL = (
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOLCK,
)


def write_atomically(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a file so that a reader sees the old bytes or all the new ones.

    The bytes go to a temporary file beside the final one, reach the disk and
    only then take its name. A process killed on the way leaves a temporary
    file behind: see remove_temporaries.

    Raises:
      OSError: saying what could not be written and why.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            f"write: {path} must be writable with"
            f" {len(data) / 2**20:.1f} MiB free, got {error.strerror}"
        ) from error


def temporary_name(name: str) -> str:
    """The name of this process's temporary file for a file of that name."""
    return f".{name}.{os.getpid()}{_TEMPORARY_END}"


def is_missing_call(error: OSError) -> bool:
    """Whether a file system says that it does not have what was asked for.

    As network file systems and those in user space do.
    """
    return error.errno in _MISSING_CALL


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
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """Sees to it that a file or a folder is on the disk, where that is said."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_missing_call(error):
            raise
