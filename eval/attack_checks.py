"""Whether an attack fails because gradients lead nowhere.

A network whose gradients are masked looks robust and is not. Source: Athalye
et al., "Obfuscated Gradients Give a False Sense of Security", ICML 2018,
section 3.1.
"""

import itertools
from collections.abc import Sequence

from eval.attacked_batch import Attack
from eval.attacks import Outcome

# The attack with more and more steps, and in larger and larger balls. The step
# stays: larger ones jump over what they look for.
_MORE_STEPS = tuple(Attack(8, 2, count) for count in (1, 2, 4, 8, 16, 32))
_LARGER_BALLS = tuple(Attack(size, 2, 64) for size in (8, 32, 128))

ATTACKS = (*_MORE_STEPS, *_LARGER_BALLS)

# Of the success in percent: steps that overshoot lose single images.
_TOLERANCE = 1.0


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """Two lines on the outcomes of ATTACKS, which are among the given ones."""
    by_attack = {outcome.attack: outcome for outcome in outcomes}
    success = [by_attack[attack].success for attack in _MORE_STEPS]
    weaker = any(
        later < earlier - _TOLERANCE
        for earlier, later in itertools.pairwise(success)
    )
    largest = _LARGER_BALLS[-1]
    last = by_attack[largest]
    return [
        "more steps are never weaker: "
        + ("NO, gradients may be masked" if weaker else "yes")
        + f" (success {', '.join(f'{value:.2f}' for value in success)}%)",
        f"a ball of {largest.epsilon} leaves nothing right: "
        + ("NO, gradients may be masked" if last.top1 > 0 else "yes")
        + f" (top-1 {last.top1:.2f}%, success {last.success:.2f}%)",
    ]
