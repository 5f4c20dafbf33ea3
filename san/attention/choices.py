"""Parts of a block that are chosen by a name or by a class."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def chosen_name(
    block: str, argument: str, value: Any, known: Mapping[str, Any]
) -> str:
    """The name that somebody has given for an argument.

    Raises:
      ValueError: if it is none of the known ones.
    """
    if isinstance(value, str) and value in known:
        return value
    (nearest,) = difflib.get_close_matches(str(value), known, 1, 0)
    raise ValueError(
        f"{block}: {argument} must be one of {', '.join(known)}, "
        f"got {value!r}; the nearest is {nearest!r}"
    )


def create_part(
    block: str,
    kind: type[nn.Module],
    value: Any,
    known: Mapping[str, Callable[[], nn.Module] | None],
) -> Any:
    """Makes a part from its name or its class; None where a name has none.

    Args:
      block: the attention block, for the error.
      kind: what the part is to be; the argument is named after it.
      value: a name of `known`, or anything that makes one of that kind.
      known: what makes the parts that have names.

    Raises:
      ValueError: if it is neither.
    """
    argument = kind.__name__.lower()
    if isinstance(value, nn.Module):
        raise ValueError(
            f"{block}: {argument} must be a name or a class, of which each "
            f"block makes its own, got a made {type(value).__name__}"
        )
    if not callable(value):
        make = known[chosen_name(block, argument, value, known)]
        return None if make is None else make()
    made = value()
    if not isinstance(made, kind):
        raise ValueError(
            f"{block}: {argument} must make a {kind.__name__}, "
            f"got {type(made).__name__}"
        )
    return made
