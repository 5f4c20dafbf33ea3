"""How the jobs' main functions end: a user's mistake is one clear line.

No job and no flags in here: a job is a command's own, flags are in flags.py.
"""

import sys
from collections.abc import Callable, Sequence

from absl import logging

from san.jobs import config

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
        if not isinstance(error, ValueError) and not config.is_unbound(error):
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


def _explain(error: Exception, exit_code: int) -> int:
    logging.debug("traceback", exc_info=error)
    text = config.without_place(error)
    if isinstance(error, RuntimeError):
        text += "; is a --gin_file missing, such as san10_pair.gin?"
    print(f"error: {text}", file=sys.stderr)
    return exit_code
