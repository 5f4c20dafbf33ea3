"""Whether command lines fit a command: reads them, says what is wrong.

  python -m tests.docs.flags_probe MODULE POSITIONAL < lines.json

Each line is a list of arguments. POSITIONAL is JSON, too: null if everything
must be a flag, or the words that may stand beside flags; with none, any may.
Prints as JSON null or what is the matter, line by line.
"""

import importlib
import json
import sys

from absl import flags


def problem(arguments, positional):
    """What a command would refuse of its arguments before it does anything."""
    # A command wants to be imported before torch is.
    from san.data import Data
    from san.jobs import config
    from san.recipe import Recipe

    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        _, *rest = flags.FLAGS(["command", *arguments])
        if "gin_file" in flags.FLAGS:
            config.parse(flags.FLAGS.gin_file, flags.FLAGS.gin_param)
            Recipe()
            Data()
    except (flags.Error, ValueError) as error:
        return str(error)
    for word in rest:
        if positional is None or (positional and word not in positional):
            return f"not a flag: {word}"
    return None


def main(module, positional):
    """Probes a module's command."""
    importlib.import_module(module)
    words = json.loads(positional)
    answer = [problem(line, words) for line in json.load(sys.stdin)]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
