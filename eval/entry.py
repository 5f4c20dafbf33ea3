"""How the jobs' main functions end: a user's mistake is one clear line.

No job and no flags in here; those are in imagenet.py and train/main.py.
"""

import os
import sys
from collections.abc import Callable, Sequence

from absl import logging

# Read when torch is first imported, which is after this module: a thread that
# waits for another soon gives its core away. By default it spins for
# milliseconds, and whatever else wants a core makes a step on the CPU ten times
# slower. Where nothing does, this costs a tenth.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Exit codes.
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


def run(job: Callable[[], None]) -> int:
    """Runs a job; prints what the user can mend instead of a traceback.

    With --verbosity=1 the traceback is printed as well.

    Returns:
      The exit code: 0, or 1 if something failed on the way (a file, the
      loss), or 2 if a flag, a setting or the data was wrong.
    """
    try:
        job()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ArithmeticError) as error:
        return _explain(error, FAILED)
    except (ValueError, RuntimeError) as error:
        if not isinstance(error, ValueError) and not _is_unbound(error):
            raise
        return _explain(error, WRONG_USE)
    return 0


def check_no_arguments(arguments: Sequence[str]) -> None:
    """Raises ValueError if something on the command line is not a flag."""
    if arguments:
        raise ValueError(
            "command line: everything must be a flag (--name=value), got"
            f" {' '.join(arguments)!r}; --help lists them"
        )


def _is_unbound(error: RuntimeError) -> bool:
    """Whether gin misses a value without which nothing can be built."""
    return str(error).startswith("Required bindings for")


def _explain(error: Exception, exit_code: int) -> int:
    logging.debug("traceback", exc_info=error)
    # gin adds where in the configuration an error came up.
    text = str(error).partition("\n  In call to configurable")[0]
    if isinstance(error, RuntimeError):
        text += "; is a --gin_file missing, such as san10_pair.gin?"
    print(f"error: {text}", file=sys.stderr)
    return exit_code
