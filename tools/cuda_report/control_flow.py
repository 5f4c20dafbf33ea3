"""The loops of a kernel, found in its machine code.

A loop is what a branch closes that goes back to an instruction through which
every way to the branch leads (a natural loop: Aho, Lam, Sethi, Ullman,
Compilers, 9.6). Loops with one head are one loop.

Subroutines are no part of it: in these kernels the slow ways of divisions, for
operands that hardly occur. For sm_80 the compiler also leaves loops by CALL; a
target from which no RET is reached is no subroutine, and such a CALL a branch.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from tools.cuda_report.disassembly import Instruction

_TARGET = re.compile(r"0x([0-9a-f]+)")
# `BRA.U !UP0, 0x...`, `BRA P0, 0x...`, `BRA.DIV UR4, 0x...`.
_CONDITION = re.compile(r"\s!?U?(?:P|R)\w+\s*,")
_ENDS = frozenset({"EXIT", "RET", "KILL", "BPT"})
_INDIRECT = frozenset({"BRX", "BRXU", "JMX", "JMXU"})


@dataclasses.dataclass
class Loop:
    """A loop, or the kernel as a whole.

    Attributes:
      address: of its first instruction.
      blocks: its code outside of inner loops, in pieces without a branch.
      inner: the loops in it, in the order of their addresses.
    """

    address: int
    blocks: list[list[Instruction]]
    inner: list["Loop"]

    @functools.cached_property
    def own(self) -> list[Instruction]:
        """Its instructions outside of inner loops."""
        return [i for block in self.blocks for i in block]

    def all(self) -> list[Instruction]:
        """Its instructions, those of inner loops included."""
        return self.own + [i for loop in self.inner for i in loop.all()]


def loops(code: Sequence[Instruction]) -> Loop:
    """The kernel as a tree of loops, without instructions that none reaches.

    Raises:
      ValueError: for a jump through a register, or a loop with two entries.
    """
    graph = _Graph(code)
    bodies = graph.loop_bodies()
    root = Loop(code[0].address if code else 0, [], [])
    heads = sorted(
        bodies, key=lambda head: (-len(bodies[head]), graph.starts[head])
    )
    tree = {head: Loop(graph.address(head), [], []) for head in heads}
    for block in sorted(graph.reached):
        around = [head for head in heads if block in bodies[head]]
        innermost = tree[around[-1]] if around else root
        innermost.blocks.append(graph.code_of(block))
    for head in sorted(heads, key=lambda head: graph.starts[head]):
        around = [h for h in heads if head in bodies[h] and h != head]
        (tree[around[-1]] if around else root).inner.append(tree[head])
    return root


class _Graph:
    """Blocks of instructions, and which may follow which."""

    def __init__(self, code: Sequence[Instruction]) -> None:
        self.code = code
        at = {instruction.address: i for i, instruction in enumerate(code)}
        calls = {
            i: at[_target(instruction)]
            for i, instruction in enumerate(code)
            if instruction.base == "CALL" and _target(instruction) in at
        }
        targets = {
            i: at[_target(instruction)]
            for i, instruction in enumerate(code)
            if instruction.base == "BRA"
        }
        returning = _returning(code, targets)
        targets |= {
            i: target for i, target in calls.items() if target not in returning
        }
        starts = {0} | set(targets.values())
        for i, instruction in enumerate(code):
            if instruction.base in _INDIRECT:
                raise ValueError(
                    "cuda_report: a kernel must not jump through registers,"
                    f" got {instruction.text}"
                )
            if i in targets or instruction.base in _ENDS:
                starts.add(i + 1)
        self.starts = sorted(i for i in starts if i < len(code))
        self.block_at = {start: b for b, start in enumerate(self.starts)}
        self.successors = [
            self._successors(b, targets) for b in range(len(self.starts))
        ]
        self.order = self._order()
        self.reached = set(self.order)
        self.predecessors: list[list[int]] = [[] for _ in self.starts]
        for block in self.reached:
            for successor in self.successors[block]:
                self.predecessors[successor].append(block)

    def _end(self, block: int) -> int:
        following = block + 1
        return (
            self.starts[following]
            if following < len(self.starts)
            else len(self.code)
        )

    def code_of(self, block: int) -> list[Instruction]:
        return list(self.code[self.starts[block] : self._end(block)])

    def address(self, block: int) -> int:
        return self.code[self.starts[block]].address

    def _successors(self, block: int, targets: dict[int, int]) -> list[int]:
        last = self._end(block) - 1
        instruction = self.code[last]
        found = [self.block_at[targets[last]]] if last in targets else []
        passes = instruction.base not in _ENDS and last not in targets
        passes = passes or _is_conditional(instruction)
        if passes and block + 1 < len(self.starts):
            found.append(block + 1)
        return found

    def _order(self) -> list[int]:
        """What is reached, each block before what only it leads to."""
        order: list[int] = []
        seen = {0}
        stack = [(0, iter(self.successors[0]))]
        while stack:
            block, following = stack[-1]
            new = next((b for b in following if b not in seen), None)
            if new is None:
                order.append(block)
                stack.pop()
            else:
                seen.add(new)
                stack.append((new, iter(self.successors[new])))
        return order[::-1]

    def _dominators(self) -> dict[int, int]:
        """Of each block the last one that all ways to it lead through.

        Cooper, Harvey, Kennedy: A Simple, Fast Dominance Algorithm.
        """
        number = {block: i for i, block in enumerate(self.order)}
        above = {0: 0}
        changed = True
        while changed:
            changed = False
            for block in self.order[1:]:
                known = [p for p in self.predecessors[block] if p in above]
                one = known[0]
                for other in known[1:]:
                    while one != other:
                        if number[one] > number[other]:
                            one = above[one]
                        else:
                            other = above[other]
                changed |= above.get(block) != one
                above[block] = one
        return above

    def loop_bodies(self) -> dict[int, set[int]]:
        """The blocks of each loop by its head."""
        above = self._dominators()
        number = {block: i for i, block in enumerate(self.order)}
        bodies: dict[int, set[int]] = {}
        for block in self.order:
            for head in self.successors[block]:
                if number[head] > number[block]:
                    continue
                walk = block
                while walk not in (head, 0):
                    walk = above[walk]
                if walk != head:
                    raise ValueError(
                        "cuda_report: a loop must have one entry, got another"
                        f" at {self.address(head):#x}"
                    )
                bodies.setdefault(head, {head}).update(self._body(head, block))
        return bodies

    def _body(self, head: int, back: int) -> set[int]:
        body, waiting = {head}, [back]
        while waiting:
            block = waiting.pop()
            if block not in body:
                body.add(block)
                waiting += self.predecessors[block]
        return body


def _returning(
    code: Sequence[Instruction], branches: dict[int, int]
) -> set[int]:
    """The instructions from which a RET is reached without a CALL."""
    before: list[list[int]] = [[] for _ in code]
    for i, instruction in enumerate(code):
        if i in branches:
            before[branches[i]].append(i)
        ends = instruction.base in _ENDS or i in branches
        passes = not ends or _is_conditional(instruction)
        if passes and i + 1 < len(code):
            before[i + 1].append(i)
    found: set[int] = set()
    waiting = [i for i, known in enumerate(code) if known.base == "RET"]
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += before[i]
    return found


def _is_conditional(instruction: Instruction) -> bool:
    return instruction.conditional or bool(
        instruction.base == "BRA" and _CONDITION.search(instruction.text)
    )


def _target(instruction: Instruction) -> int:
    found = _TARGET.findall(instruction.text)
    return int(found[-1], 16) if found else -1
