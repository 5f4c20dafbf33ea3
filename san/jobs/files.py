"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

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

    A process killed on the way leaves a temporary file behind: see
    remove_temporaries.

    Raises:
      OSError: saying what could not be written and why.
    """
    with written(path, data):
        pass


def write_output(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a file that a flag named, whole, and says so on stderr.

    Raises:
      OSError: saying what could not be written and why.
    """
    write_atomically(path, data)
    print(f"written: {path}", file=sys.stderr)


@contextlib.contextmanager
def written(
    path: pathlib.Path, data: bytes | memoryview
) -> Iterator[pathlib.Path]:
    """A temporary file that holds the bytes and takes the path's name at last.

    Within it the bytes are on the disk already, and the old file is there.

    Yields:
      The temporary file.

    Raises:
      OSError: saying what could not be written and why.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        # One that was left here may be another file too: see link.
        temporary.unlink(missing_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
        yield temporary
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(_describe(error, path, len(data))) from error


def check_replacing(folder: pathlib.Path) -> None:
    """Tries what write_atomically needs, before there is something to lose.

    Some file systems in user space, and object stores as folders, do not let a
    file take the name of another.

    Raises:
      OSError: as write_atomically.
    """
    probe = folder / temporary_name("replaced")
    try:
        for content in (b"old", b"new"):
            write_atomically(probe, content)
    finally:
        probe.unlink(missing_ok=True)


def _describe(error: OSError, path: pathlib.Path, num_bytes: int) -> str:
    """What to say of a file that could not be written."""
    if error.filename2 is not None:  # Of renaming alone.
        return (
            f"write: {path.parent} must be a folder in which a file can take"
            f" another's name, got {error.strerror}; choose one on another"
            f" file system; {path.name} is as it was"
        )
    return (
        f"write: {path} must be writable with {num_bytes / 2**20:.1f} MiB"
        f" free, got {error.strerror}"
    )


def link(file: pathlib.Path, name: pathlib.Path) -> None:
    """Gives a file a second name, in place of what has that name, at once.

    It is a copy where the file system has no hard links.

    Raises:
      OSError: if neither can be made.
    """
    temporary = name.with_name(temporary_name(name.name))
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(file, temporary)
        # There are a dozen ways to say that there are no hard links, EPERM
        # among them. What else can be the matter, copying meets as well.
        except OSError:
            _copy(file, temporary)
        os.replace(temporary, name)
    finally:
        # Replacing a name of the same file does nothing.
        temporary.unlink(missing_ok=True)


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


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    with open(source, "rb") as original, open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        _flush(copy.fileno())


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
