"""The ways in which san computes its attention."""

import functools
from collections.abc import Callable

import san

OURS = "fused"
# Ours and what is a peer of it.
BACKENDS = (OURS, "unfused", "reference")


def chooser(backend: str) -> Callable[[], None]:
    """What makes every attention block compute in this way from then on."""
    return functools.partial(san.set_attention_backend, backend)
