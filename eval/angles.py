"""Angles as a command line says them."""

import math


def parse(text: str) -> list[float]:
    """The angles from START to STOP in steps, both ends included.

    Args:
      text: START:STOP:STEP in degrees, such as 0:360:15.

    Raises:
      ValueError: if it is anything else.
    """
    try:
        start, stop, step = map(float, text.split(":"))
        count = math.floor((stop - start) / step + 1e-9) + 1
    except (ValueError, OverflowError, ZeroDivisionError):
        count = 0
    if count < 1:
        raise ValueError(
            "robustness: --angles must be START:STOP:STEP in degrees, with a"
            f" STEP that leads from START to STOP, got {text!r}"
        )
    return [start + step * place for place in range(count)]
