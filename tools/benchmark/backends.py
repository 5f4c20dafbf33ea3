"""The ways in which san computes its attention."""

import functools
from collections.abc import Callable, Mapping, Sequence

import san
from tools.benchmark.measurement import Settings

OURS = "fused"
# Ours and what is a peer of it.
BACKENDS = (OURS, "unfused", "reference")


def chooser(backend: str) -> Callable[[], None]:
    """What makes every attention block compute in this way from then on."""
    return functools.partial(san.set_attention_backend, backend)


def chosen(settings: Settings, *slow: str) -> Sequence[str]:
    """Those that there is time for; ours comes first."""
    return [b for b in BACKENDS if b not in skipped(settings, *slow)]


def skipped(settings: Settings, *slow: str) -> Mapping[str, str]:
    """Reason by name of those that there is no time for.

    Args:
      settings: where `quick` is.
      slow: names besides that of the slowest.
    """
    if not settings.quick:
        return {}
    return {
        name: "--quick leaves it out; eager is measured"
        for name in (*slow, "reference")
    }
