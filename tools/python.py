"""Runs a script, or a prompt, with the whole project importable.

    bazel run //tools:python -- FILE ARGS...
    bazel run //tools:python -- -m MODULE ARGS...
    bazel run //tools:python

FILE is relative to the folder in which the command was given.
"""

import code
import os
import runpy
import sys


def main():
    """Runs what the command line names; without arguments, a prompt."""
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", os.getcwd()))
    arguments = sys.argv[1:]
    if not arguments:
        code.interact(banner="SAN: try `import san`", local={})
    elif arguments[0] in ("-h", "--help"):
        print(__doc__)
    elif arguments[0] == "-m" and len(arguments) > 1:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif os.path.exists(arguments[0]):
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        sys.exit(f"python: FILE must exist, got {arguments[0]}")


if __name__ == "__main__":
    main()
