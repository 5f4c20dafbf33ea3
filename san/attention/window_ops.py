"""The window operators as the chosen backend computes them."""

from typing import Any

from san import ops
from san.backend import attention_backend
from san.ops import reference


def window_ops() -> Any:
    """The module with aggregation, subtraction and subtraction2."""
    return reference if attention_backend() == "reference" else ops


def same_window(kernel_size: int) -> dict[str, int]:
    """The footprint whose output has the size of the image."""
    return {"kernel_size": kernel_size, "padding": kernel_size // 2}
