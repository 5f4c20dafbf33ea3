"""What is said about files that cannot be used: all of them, in one line."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from san.data import exclusion

_MAX_REASONS = 8  # Named in one line.
_LIST = "unusable.txt"


class Problem(NamedTuple):
    """A file that cannot be used, and why.

    Attributes:
      path: relative to the data folder.
      reason: a predicate, such as "is empty".
    """

    path: str
    reason: str


def describe(root: str, bad: Sequence[Problem], listed: str | None) -> str:
    """One line on all the files: every reason, with how many files and one.

    Args:
      root: the data folder.
      bad: the files.
      listed: the list of them, if it was written.
    """
    by_reason: dict[str, list[str]] = {}
    for problem in bad:
        by_reason.setdefault(problem.reason, []).append(problem.path)
    parts = [
        f"{os.path.join(root, paths[0])} {reason}"
        + (f" ({len(paths) - 1} more likewise)" if len(paths) > 1 else "")
        for reason, paths in by_reason.items()
    ]
    more = len(parts) - _MAX_REASONS
    if more > 0:
        parts[_MAX_REASONS:] = [f"and files for {more} other reasons"]
    count = f"{len(bad)} files cannot be used: " if len(bad) > 1 else ""
    them = "them" if len(bad) > 1 else "it"
    return (
        f"{count}{'; '.join(parts)}: class folders must hold whole image files"
        f" only; replace or remove {them}"
        + (
            f", or leave {them} out by Data.exclude = {listed!r}"
            if listed
            else ""
        )
    )


def write_list(
    bad: Sequence[Problem], excluded: Sequence[str], folder: str | None
) -> str | None:
    """Writes an exclusion list of the files and of those excluded before.

    Args:
      bad: the files.
      excluded: paths that are excluded already.
      folder: where the list goes; None writes none.

    Returns:
      The list's absolute path, or None if it could not be written.
    """
    if folder is None:
        return None
    paths = dict.fromkeys([*excluded, *(problem.path for problem in bad)])
    listed = os.path.join(os.path.abspath(folder), _LIST)
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=".list_", suffix=".tmp"
        ) as work:
            new = os.path.join(work, _LIST)
            with open(new, "wb") as file:
                file.write(exclusion.as_text(paths))
            os.replace(new, listed)
        return listed
    return None
