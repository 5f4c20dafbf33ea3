"""JSON that every reader takes, of figures as they come."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def text_of(content: Any) -> str:
    """Content as JSON with a newline at its end.

    NumPy's numbers are numbers. What is not finite, which JSON has no word
    for, is null.
    """
    return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"


def line_of(content: Any) -> str:
    """The same in one line, for files of many."""
    return json.dumps(_plain(content), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
