"""--class_map: which of a network's classes each class folder is.

A JSON object of folder names and classes, by name or by number from 0:

  {"goldfish": "n01443537", "great white": 2}

or a folder that has a class folder for each of the network's classes, such as
ImageNet's train or val, which says in which order a network has them that does
not name them itself.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from san import data


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """What a user says of the classes.

    Attributes:
      path: where it was said.
      folders: classes by the names of folders, by name or number; None if it
        says the names of the network's classes instead.
      names: those, in the order of the outputs, or None.
    """

    path: pathlib.Path
    folders: dict[str, str | int] | None
    names: list[str] | None


def read(path: pathlib.Path) -> ClassMap:
    """Reads a class map.

    Args:
      path: a JSON file, or a folder of class folders.

    Raises:
      ValueError: if it is neither.
    """
    if path.is_dir():
        return ClassMap(path, None, data.class_folders(str(path)))
    try:
        content = json.loads(
            # Some editors begin a file with a mark.
            path.read_text(encoding="utf-8-sig"),
            object_pairs_hook=_entries,
        )
    except FileNotFoundError as error:
        raise ValueError(
            "eval: --class_map must be a JSON file of class folders and classes,"
            f" or a folder with all classes, got {path}, which is not there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"eval: --class_map must be a JSON object, got {path} ({error})"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            "eval: --class_map must be a JSON object of class folders and"
            f' classes, such as {{"goldfish": 1}}, got something else in {path}'
        )
    for folder, value in content.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(
                "eval: --class_map must give each class folder the name of a"
                f" class or its number from 0, got {value!r} for {folder!r} in"
                f" {path}"
            )
    return ClassMap(path, content, None)


def _entries(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which nothing is said twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is in it twice")
    return content
