"""Image files that lie anywhere, without classes."""

import os
import pathlib
import stat
from collections.abc import Sequence

import numpy as np

from san.data import problems, scan
from san.data.errors import DataError
from san.data.index import ImageIndex
from san.data.listing import File


def load_files(paths: Sequence[str | os.PathLike[str]]) -> ImageIndex:
    """An index of image files, for a ValidationLoader; their labels are 0.

    Args:
      paths: of the files.

    Raises:
      DataError: names what cannot be used, and why.
    """
    files = [_file(os.path.abspath(path)) for path in paths]
    sizes, bad = scan.look_at("/", files, show_progress=False)
    if bad:
        raise DataError(problems.describe("/", bad, None))
    return ImageIndex(
        root="/",
        split="",
        classes=[""],
        paths=[file.path for file in files],
        labels=np.zeros(len(files), np.int64),
        heights=sizes[:, 0],
        widths=sizes[:, 1],
    )


def _file(path: str) -> File:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(
            f"{path} must be an image file ({error.strerror})"
        ) from error
    return File(
        pathlib.PurePath(path).relative_to("/").as_posix(),
        status.st_size,
        status.st_mtime_ns,
        stat.S_IFMT(status.st_mode),
    )
