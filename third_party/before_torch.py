"""What a command must set before torch is first imported, by anything.

Therefore not in san: `import san` is an import of torch.
"""

import os
import signal
import sys
from collections.abc import Iterable

from third_party import stop_signals

_SETTINGS = {
    # libgomp reads this when torch loads it: a thread that waits for another
    # soon gives its core away. By default it spins for milliseconds, and
    # whatever else wants a core makes a step on the CPU ten times slower.
    # Where nothing does, this costs a tenth.
    "GOMP_SPINCOUNT": "1000",
    # Where a process of several dies, torch's C++ code writes a page about it
    # on every other one's screen; ours is a line (san/jobs/peers.py).
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def settings(
    ended_by: Iterable[signal.Signals] = (signal.SIGINT,),
) -> dict[str, str]:
    """The environment variables to set now; the user's own are kept.

    The first thing that a command does:

      os.environ.update(before_torch.settings())

    The imports that follow take seconds, in which people press Ctrl-C.

    Args:
      ended_by: signals that end the command in a line from now on, until it
        handles them itself.

    Raises:
      AssertionError: if torch is imported already, which has read them.
    """
    if "torch" in sys.modules:
        raise AssertionError(
            "before_torch: torch must not be imported yet, got it in"
            " sys.modules; a command calls this before its other imports"
        )
    stop_signals.end_at_once(ended_by)
    return {
        name: value
        for name, value in _SETTINGS.items()
        if name not in os.environ
    }
