"""Lists the class folders of a split and the files in them; opens none.

Labels are places in the sorted list of class folders: by number where all
names are numbers, else as text.
"""

import collections
import concurrent.futures
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

NUM_THREADS = 16  # They mostly wait for the file system.

# What systems and file managers leave behind, in lower case. Hidden files and
# folders are left out without being counted.
_CLUTTER = frozenset(
    {
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)


class File(NamedTuple):
    """A file: its path relative to the data folder, and its state.

    Attributes:
      path: relative to the data folder.
      num_bytes: its length.
      mtime_ns: when it was changed.
      kind: the file type bits of its mode, after links; 0 if there is none.
    """

    path: str
    num_bytes: int
    mtime_ns: int
    kind: int


class Folder(NamedTuple):
    """What a class folder holds.

    Attributes:
      files: in the order of their names.
      clutter: how often each name of a system's own files was left out.
    """

    files: list[File]
    clutter: collections.Counter[str]


def class_folders(folder: str) -> list[str]:
    """Names of the folders in a folder, in the order of their labels.

    Args:
      folder: root/train or root/val.
    """
    with os.scandir(folder) as entries:
        return in_order(
            [
                entry.name
                for entry in entries
                if not _is_left_out(entry.name) and entry.is_dir()
            ]
        )


def in_order(names: list[str]) -> list[str]:
    """Names of classes in the order of their labels.

    Args:
      names: in any order.
    """
    if are_numbers(names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are whole numbers in decimal digits.

    Args:
      names: of the classes.
    """
    return all(name.isascii() and name.isdigit() for name in names)


def list_folders(root: str, split: str, classes: list[str]) -> list[Folder]:
    """What lies in the class folders, less hidden files and clutter.

    Args:
      root: the data folder.
      split: "train" or "val".
      classes: names of the class folders.
    """

    def of_class(name: str) -> Folder:
        return _list_folder(root, os.path.join(split, name))

    # Threads, since a network file system answers slowly but in parallel.
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(of_class, classes))


def _list_folder(root: str, folder: str) -> Folder:
    found = Folder([], collections.Counter())
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in entries:
            if not _is_left_out(entry.name):
                path = os.path.join(folder, entry.name)
                found.files.append(_file(path, entry))
            elif not entry.name.startswith("."):
                found.clutter[entry.name] += 1
    found.files.sort()
    return found


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _CLUTTER


def _file(path: str, entry: os.DirEntry[str]) -> File:
    try:
        status = entry.stat()
    except OSError:
        return File(path, 0, 0, 0)  # The scan says why.
    kind = stat.S_IFMT(status.st_mode)
    return File(path, status.st_size, status.st_mtime_ns, kind)
