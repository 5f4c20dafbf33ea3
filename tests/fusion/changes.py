"""Where the changes that people make to networks are collected, by name.

One function for each, in hook_changes, layer_changes, class_changes and
weight_changes. Each takes a SAN of two stages, (1, 2) blocks, footprints
(3, 7) and widths (64, 128), in float64, and changes it in place. Those of
LOOKS leave what it computes as it is, all others do not.
"""

CHANGES = {}
LOOKS = set()


def change(function):
    CHANGES[function.__name__] = function
    return function


def look(function):
    LOOKS.add(function.__name__)
    return change(function)


def named(name, function):
    function.__name__ = name
    change(function)
