"""Which images a folder holds: root/train/<class>/* and root/val/<class>/*.

Or class folders alone, root/<class>/*, as test sets are distributed. Checks the
folders and makes the index; listing.py lists the files, scan.py looks into
them.
"""

import collections
import itertools
import os
import sys

import numpy as np

from san.data import exclusion, listing, problems, scan
from san.data.errors import DataError, first_few
from san.data.index import ImageIndex

SPLITS = ("train", "val")

_LAYOUT = (
    "a data folder is laid out as ImageNet:"
    " <folder>/train/<class>/*.JPEG and <folder>/val/<class>/*.JPEG"
)


def load_split(
    root: str,
    split: str,
    *,
    cache_dir: str | None = None,
    exclude: str | None = None,
    show_progress: bool = True,
) -> ImageIndex:
    """Lists one split of a data folder and looks into each of its files.

    Hidden files and folders are left out, as are files beside the class
    folders and what systems leave behind, such as Thumbs.db. Validation
    images need no training images beside them.

    Args:
      root: the data folder.
      split: "train" or "val".
      cache_dir: where image sizes are kept, so that files that did not
        change are not opened again; None keeps nothing.
      exclude: list of images to leave out, see exclusion.py: absolute, or
        relative to the data folder.
      show_progress: say on stderr what is left out, and how far it is if it
        takes long.

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
    classes = _class_names(root, split)
    if split == "train":
        _check_same_classes(root, classes)
    return _load(root, split, classes, cache_dir, exclude, show_progress)


def load_folder(folder: str, *, show_progress: bool = True) -> ImageIndex:
    """Lists a folder that holds class folders itself, as load_split a split.

    Args:
      folder: holds <class>/* images, and no splits.
      show_progress: as load_split.

    Returns:
      The images, by class and name; the index has the split "".

    Raises:
      DataError: as load_split.
    """
    folder = os.path.abspath(folder)
    classes = class_folders(folder)
    return _load(folder, "", classes, None, None, show_progress)


def class_folders(folder: str) -> list[str]:
    """Names of the class folders in a folder, in the order of their labels.

    Args:
      folder: holds <class>/* images.

    Raises:
      DataError: there are none.
    """
    if not os.path.isdir(folder):
        raise DataError(f"folder of class folders {folder} does not exist")
    classes = listing.class_folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no class folders, <class>/*.JPEG")
    return classes


def _load(
    root: str,
    split: str,
    classes: list[str],
    cache_dir: str | None,
    exclude: str | None,
    show_progress: bool,
) -> ImageIndex:
    """The images of class folders; see load_split, and load_folder for ""."""
    excluded = set(exclusion.read(exclude, root) if exclude else ())
    folders = listing.list_folders(root, split, classes)
    by_class = [
        [file for file in folder.files if file.path not in excluded]
        for folder in folders
    ]
    _check_none_empty(root, split, classes, by_class)
    if show_progress:
        _print_left_out(split or root, folders, excluded, exclude or "")
    files = list(itertools.chain.from_iterable(by_class))
    sizes, bad = scan.look_at(
        root,
        files,
        cache=cache_dir and os.path.join(cache_dir, f"{split}_sizes.npz"),
        show_progress=show_progress,
    )
    if bad:
        listed = problems.write_list(bad, sorted(excluded), cache_dir)
        raise DataError(problems.describe(root, bad, listed))
    return ImageIndex(
        root=root,
        split=split,
        classes=classes,
        paths=[file.path for file in files],
        labels=np.repeat(np.arange(len(classes)), [*map(len, by_class)]),
        heights=sizes[:, 0],
        widths=sizes[:, 1],
    )


def _class_names(root: str, split: str) -> list[str]:
    """Names of the class folders of a split, in the order of their labels.

    Args:
      root: the data folder.
      split: "train" or "val".

    Raises:
      DataError: there are none.
    """
    if not os.path.isdir(root):
        raise DataError(f"data folder {root} does not exist; {_LAYOUT}")
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise DataError(f"{root} has no folder {split!r}; {_LAYOUT}")
    classes = listing.class_folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no class folders; {_LAYOUT}")
    return classes


def _print_left_out(
    split: str, folders: list[listing.Folder], excluded: set[str], source: str
) -> None:
    clutter = sum((folder.clutter for folder in folders), collections.Counter())
    if clutter:
        counts = (
            f"{count} {name!r}" for name, count in sorted(clutter.items())
        )
        print(
            f"no images, left out of {split}: {', '.join(counts)}",
            file=sys.stderr,
        )
    if not source:
        return
    listed = {path for path in excluded if path.startswith(f"{split}/")}
    there = {file.path for folder in folders for file in folder.files}
    count, gone = len(listed & there), len(listed - there)
    print(
        f"{count} {'image' if count == 1 else 'images'} of {split} excluded by"
        f" Data.exclude = {source!r}"
        + (f"; {gone} of its paths are not there" if gone else ""),
        file=sys.stderr,
    )


def _check_none_empty(
    root: str,
    split: str,
    classes: list[str],
    by_class: list[list[listing.File]],
) -> None:
    empty = [
        os.path.join(root, split, name)
        for name, files in zip(classes, by_class, strict=True)
        if not files
    ]
    if empty:
        raise DataError(
            f"{first_few(empty)}: no images in it; every class folder must"
            " hold images: add them or remove the folder"
            + (" from train and val" if split else "")
        )


def _check_same_classes(root: str, train: list[str]) -> None:
    """Labels are places in the list of classes, so both must have one list."""
    folder = os.path.join(root, "val")
    if not os.path.isdir(folder):
        return
    val = listing.class_folders(folder)
    differences = [
        f"only in {split}: {first_few(listing.in_order(list(names)))}"
        for split, names in (
            ("train", set(train) - set(val)),
            ("val", set(val) - set(train)),
        )
        if names
    ]
    if differences:
        raise DataError(
            f"train and val in {root} must have the same class folders;"
            f" {'; '.join(differences)}"
        )
