"""The command lines in the project's pages."""

import re
import shlex

# Where a command ends and another one, or none, begins.
_ENDS = {"&&", ";", "&", "|", ">", ">>", "<", "}", "do", "done", "until"}
_COMMAND = re.compile(r"(\./bazelw|bazel|bazel-bin/\S+|sbatch|python3)$")
_LOOP = re.compile(r"for (\w+) in ([^;\s]+)[^;]*; do")


def commands(block):
    """The commands of a block of console or shell, as lists of words.

    Of loops the first turn. What is no command of the project, such as mkdir,
    is left out.
    """
    if block.language not in ("bash", "console", "indented"):
        return []
    text = block.text.replace("\\\n", " ")
    for name, value in _LOOP.findall(text):
        text = text.replace(f"${name}", value)
    # Here-documents hold other languages.
    text = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", text, flags=re.DOTALL)
    found = []
    for line in text.splitlines():
        found += _commands_of_line(_words(line))
    return found


def _words(line):
    words = shlex.shlex(line, posix=True, punctuation_chars="&;|<>")
    words.whitespace_split = True
    return list(words)


def _commands_of_line(words):
    found, current = [], None
    for word in words:
        if word in _ENDS:
            current = None
        elif current is not None:
            current.append(word)
        elif _COMMAND.match(word):
            current = [word]
            found.append(current)
    return found
