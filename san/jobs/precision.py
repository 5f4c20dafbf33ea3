"""Mixed precision, as Recipe.precision names it."""

import contextlib
from typing import Any

import torch


def autocast(
    device: torch.device, precision: str
) -> contextlib.AbstractContextManager[Any]:
    """The context in which a network computes at a precision of Recipe."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
