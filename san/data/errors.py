"""The error that bad input raises, and how it names many files in one line."""

from collections.abc import Sequence

_MAX_NAMED = 3


class DataError(ValueError):
    """Data that cannot be used; one line says which file and what to do."""


def first_few(names: Sequence[str], separator: str = ", ") -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - _MAX_NAMED
    text = separator.join(names[:_MAX_NAMED])
    return f"{text} and {more} more" if more > 0 else text
