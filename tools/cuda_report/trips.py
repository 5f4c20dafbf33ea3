"""How often the loops of a kernel run: what an entry declares, and its match.

An entry names a kernel's loops in the order of its source, which compilers
keep, and how many steps each makes. A step may be unrolled, or split into
several loops: an anchor tells how many steps an iteration makes, a class of
instructions of which each step has so many. What is left over after whole
iterations stands in the code around the loop and is counted there.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tools.cuda_report import mix
from tools.cuda_report.control_flow import Loop
from tools.cuda_report.disassembly import Instruction

# A loop that only counts, such as the search for a logarithm.
_MOST_COUNTING = 12


@dataclasses.dataclass(frozen=True)
class Steps:
    """A loop of the source.

    Attributes:
      what: it does.
      trips: from the problem's sizes, steps for each entry into the loop, the
        mean over the warps of a block.
      anchor: a class of mix.CLASSES that the loop's own code must have; without
        one the loop only counts, or has `inner`.
      per_step: how many instructions of it a step has; 0 where an iteration is
        a step, however many it has.
      inner: the loops within.
      optional: whether the compiler may have left it out.
      never: a class of instructions; blocks of the loop's own code that have
        one do not run for these networks.
    """

    what: str
    trips: Callable[[Any], float]
    anchor: str = ""
    per_step: int = 1
    inner: "tuple[Steps, ...]" = ()
    optional: bool = False
    never: str = ""


@dataclasses.dataclass
class Matched:
    """Steps and the loops that the compiler made of them."""

    steps: Steps
    loops: list[Loop]
    inner: "list[Matched]"

    def unrolled(self, loop: Loop) -> int:
        """Steps of an iteration."""
        return _unrolled(self.steps, loop)


def match(loops: Sequence[Loop], steps: Sequence[Steps]) -> list[Matched]:
    """Finds what is declared in what the compiler made.

    Raises:
      ValueError: if they differ, naming the first loop for which no match is
        found.
    """
    said: list[tuple[int, str]] = []
    found = _match(list(loops), list(steps), 0, said)
    if found is None:
        raise ValueError(max(said, key=lambda at: at[0])[1])
    return found


def _match(
    loops: list[Loop],
    steps: list[Steps],
    reached: int,
    said: list[tuple[int, str]],
) -> list[Matched] | None:
    if not steps:
        if loops:
            at = loops[0].address
            said.append((at, f"no entry for the loop at {at:#x}"))
            return None
        return []
    first, rest = steps[0], steps[1:]
    taken: list[Loop] = []
    while len(taken) < len(loops) and _continues(first, taken, loops):
        taken.append(loops[len(taken)])
        reached = taken[-1].address
        inner = _match(taken[-1].inner, list(first.inner), reached, said)
        if inner is None:
            break
        following = _match(loops[len(taken) :], rest, reached, said)
        if following is not None:
            return [Matched(first, taken, inner), *following]
    if first.optional:
        return _match(loops, rest, reached, said)
    at = loops[0].address if loops else reached
    where = f"the loop at {at:#x} is another" if loops else "there is none"
    said.append((at, f"no loop for '{first.what}': {where}"))
    return None


def _continues(steps: Steps, taken: list[Loop], loops: list[Loop]) -> bool:
    loop = loops[len(taken)]
    if steps.inner:
        return not taken and _has_anchor(steps, loop)
    if loop.inner or not _has_anchor(steps, loop):
        return False
    if not steps.anchor:
        return not taken
    return _unrolled(steps, loop) not in [_unrolled(steps, t) for t in taken]


def _has_anchor(steps: Steps, loop: Loop) -> bool:
    if steps.anchor:
        return _anchors(steps, loop) >= max(1, steps.per_step)
    return bool(steps.inner) or (
        len(loop.own) <= _MOST_COUNTING
        and not any(mix.is_access(i) for i in loop.own)
    )


def _anchors(steps: Steps, loop: Loop) -> int:
    return sum(mix.class_of(i) == steps.anchor for i in loop.own)


def _unrolled(steps: Steps, loop: Loop) -> int:
    if not steps.anchor or steps.inner or not steps.per_step:
        return 1
    return max(1, round(_anchors(steps, loop) / steps.per_step))


@dataclasses.dataclass(frozen=True)
class Run:
    """How often a warp goes through a loop's own code.

    Attributes:
      what: the loop does.
      loop: as the compiler made it.
      times: of a warp, the mean over those of a block.
      code: what runs of it.
    """

    what: str
    loop: Loop
    times: float
    code: list[Instruction]


def executions(root: Loop, matched: Sequence[Matched], sizes: Any) -> list[Run]:
    """The runs of all loops, the kernel's beginning and end first."""
    found = [Run("", root, 1.0, root.own)]
    _add_executions(matched, sizes, 1.0, found)
    return found


def _add_executions(
    matched: Sequence[Matched], sizes: Any, entered: float, found: list[Run]
) -> None:
    for part in matched:
        left = float(part.steps.trips(sizes))
        for loop in sorted(part.loops, key=part.unrolled, reverse=True):
            step = part.unrolled(loop)
            # A mean that is no whole number is not cut off.
            runs = left // step if left.is_integer() else left / step
            left -= runs * step
            code = _that_runs(loop, part.steps.never)
            found.append(Run(part.steps.what, loop, entered * runs, code))
            _add_executions(part.inner, sizes, entered * runs, found)


def _that_runs(loop: Loop, never: str) -> list[Instruction]:
    return [
        instruction
        for block in loop.blocks
        if not any(mix.class_of(i) == never for i in block)
        for instruction in block
    ]
