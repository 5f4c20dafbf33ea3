"""What is going on, in a line on stderr; and nothing but that."""

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Says what is done and how long it took; the libraries say nothing.

    Exporters log what is no news to users: that torchvision is missing, what
    they deprecate in each other. What fails is an exception.

    Args:
      title: such as "tracing the network".
    """
    print(f"{title} ...", end="", file=sys.stderr, flush=True)
    start, disabled = time.monotonic(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
        print(f" {time.monotonic() - start:.0f} s", end="", file=sys.stderr)
    finally:
        logging.disable(disabled)
        print(file=sys.stderr, flush=True)
