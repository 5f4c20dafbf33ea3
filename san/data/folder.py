"""Which images a folder holds: root/train/<class>/* and root/val/<class>/*.

Lists files and checks the folders; the files themselves are looked into by
scan.py.
"""

import concurrent.futures
import dataclasses
import itertools
import os

import numpy as np

from san.data import scan
from san.data.errors import DataError, first_few

SPLITS = ("train", "val")

_LAYOUT = (
    "a data folder is laid out as ImageNet:"
    " <folder>/train/<class>/*.JPEG and <folder>/val/<class>/*.JPEG"
)


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """The images of one split; image i has paths[i], labels[i], and so on.

    Attributes:
      root: the data folder, absolute.
      split: "train" or "val".
      classes: folder names, sorted; a label is a place in this list.
      paths: of the image files, relative to root, sorted.
      labels: int64 [n].
      heights: int64 [n], pixels.
      widths: int64 [n], pixels.
    """

    root: str
    split: str
    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def load_split(
    root: str,
    split: str,
    *,
    cache_dir: str | None = None,
    show_progress: bool = True,
) -> ImageIndex:
    """Lists one split of a data folder and looks into each of its files.

    Hidden files and folders are left out, as are files beside the class
    folders.

    Args:
      root: the data folder.
      split: "train" or "val".
      cache_dir: where image sizes are kept, so that files that did not
        change are not opened again; None keeps nothing.
      show_progress: show a bar if it takes long.

    Returns:
      The images, by class and name.

    Raises:
      DataError: folders or files are missing or cannot be used; one line
        that names them and says what to do.
    """
    if split not in SPLITS:
        raise ValueError(
            f"load_split: split must be 'train' or 'val', got {split!r}"
        )
    root = os.path.abspath(root)
    classes = _classes(root, split)
    _check_same_classes(root)
    files, labels = _list_files(root, split, classes)
    sizes = scan.image_sizes(
        root,
        files,
        cache=cache_dir and os.path.join(cache_dir, f"{split}_sizes.npz"),
        show_progress=show_progress,
    )
    return ImageIndex(
        root=root,
        split=split,
        classes=classes,
        paths=[file.path for file in files],
        labels=labels,
        heights=sizes[:, 0],
        widths=sizes[:, 1],
    )


def _classes(root: str, split: str) -> list[str]:
    """Sorted names of the class folders."""
    if not os.path.isdir(root):
        raise DataError(f"data folder {root} does not exist; {_LAYOUT}")
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise DataError(f"{root} has no folder {split!r}; {_LAYOUT}")
    classes = _folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no class folders; {_LAYOUT}")
    return classes


def _folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        )


def _check_same_classes(root: str) -> None:
    """Labels are places in the list of classes, so both must have one list."""
    folders = [os.path.join(root, split) for split in SPLITS]
    if not all(map(os.path.isdir, folders)):
        return
    train, val = (set(_folders(folder)) for folder in folders)
    differences = [
        f"only in {split}: {first_few(sorted(names))}"
        for split, names in zip(SPLITS, (train - val, val - train), strict=True)
        if names
    ]
    if differences:
        raise DataError(
            f"train and val in {root} must have the same class folders;"
            f" {'; '.join(differences)}"
        )


def _list_files(
    root: str, split: str, classes: list[str]
) -> tuple[list[scan.File], np.ndarray]:
    """The files of all classes, sorted, and their labels."""

    def of_class(name: str) -> list[scan.File]:
        return _files_of_class(root, os.path.join(split, name))

    # Threads, since a network file system answers slowly but in parallel.
    with concurrent.futures.ThreadPoolExecutor(scan.NUM_THREADS) as pool:
        by_class = list(pool.map(of_class, classes))
    empty = [
        os.path.join(root, split, name)
        for name, files in zip(classes, by_class, strict=True)
        if not files
    ]
    if empty:
        raise DataError(
            f"{first_few(empty)}: no images in it; every class folder must"
            " hold images: add them or remove the folder from train and val"
        )
    counts = [len(files) for files in by_class]
    files = list(itertools.chain.from_iterable(by_class))
    return files, np.repeat(np.arange(len(classes)), counts)


def _files_of_class(root: str, folder: str) -> list[scan.File]:
    files = []
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = os.path.join(folder, entry.name)
            try:
                status = entry.stat()
            except OSError:
                files.append(scan.File(path, 0, 0))  # The scan says why.
            else:
                files.append(
                    scan.File(path, status.st_size, status.st_mtime_ns)
                )
    return sorted(files)
