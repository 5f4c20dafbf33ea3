"""Looks at the class folders of a data folder; opens no image."""

import collections
import os
from collections.abc import Iterable, Iterator, Sequence

from san.data import listing
from san.data.folder import SPLITS
from tools.data_doctor.kinds import Finding, finding


def list_splits(
    root: str,
) -> tuple[dict[str, list[listing.File]], list[Finding]]:
    """The files of train and val, and what is the matter with the folders.

    Args:
      root: the data folder.
    """
    files: dict[str, list[listing.File]] = {}
    classes: dict[str, list[str]] = {}
    found: list[Finding] = []
    for split in SPLITS:
        folder = os.path.join(root, split)
        if not os.path.isdir(folder):
            found.append(finding("class_folder", split, "is not there"))
            continue
        classes[split] = listing.class_folders(folder)
        folders = listing.list_folders(root, split, classes[split])
        files[split] = [file for folder in folders for file in folder.files]
        found += _about_one_split(root, split, classes[split], folders)
    if len(classes) == len(SPLITS):
        found += _only_in_one(classes)
    return files, found


def _about_one_split(
    root: str,
    split: str,
    classes: Sequence[str],
    folders: Sequence[listing.Folder],
) -> Iterator[Finding]:
    if not classes:
        yield finding("class_folder", split, "holds no class folders")
    for name, folder in zip(classes, folders, strict=True):
        path = os.path.join(split, name)
        if not folder.files:
            yield finding("class_folder", path, "holds no images")
        for clutter, count in sorted(folder.clutter.items()):
            yield finding("clutter", path, f"{count} {clutter!r}")
        if name != " ".join(name.split()):
            yield finding("odd_class_name", path, f"{name!r} has blanks")
    for names in _alike(classes):
        detail = f"differs in case or blanks only from {names[0]!r}"
        for name in names[1:]:
            yield finding("odd_class_name", os.path.join(split, name), detail)
    with os.scandir(os.path.join(root, split)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and not os.path.exists(entry.path):
                path = os.path.join(split, entry.name)
                yield finding("class_folder", path, "is a link to nowhere")


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case or blanks only."""
    groups = collections.defaultdict(list)
    for name in names:
        groups[_plain(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


def _only_in_one(classes: dict[str, list[str]]) -> Iterator[Finding]:
    for split, other in (SPLITS, SPLITS[::-1]):
        theirs = {_plain(name): name for name in classes[other]}
        for name in classes[split]:
            if name in classes[other]:
                continue
            detail = f"{other} has no such folder"
            if like := theirs.get(_plain(name)):
                detail += f", but {like!r}"
            yield finding("class_folder", os.path.join(split, name), detail)
