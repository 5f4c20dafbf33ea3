"""What gin has been told of the networks' parts."""

import inspect
from collections.abc import Iterable
from typing import Any

import gin


def bound(configurables: Iterable[Any]) -> list[str]:
    """The parameters of classes that a gin file or binding says.

    Args:
      configurables: classes that gin can configure.

    Returns:
      Their names: "SAN.widths" and the like.
    """
    names = (
        f"{configurable.__name__}.{parameter}"
        for configurable in configurables
        for parameter in inspect.signature(configurable).parameters
    )
    return [name for name in names if is_bound(name)]


def is_bound(parameter: str) -> bool:
    """Whether a gin file or binding has said something of a parameter."""
    try:
        gin.query_parameter(parameter)
    except ValueError:
        return False
    return True
