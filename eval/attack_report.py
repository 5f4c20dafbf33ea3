"""Outcomes of attacks, as text and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from eval import published
from eval.attacked_batch import Attack
from eval.attacks import PROTOCOL, PUBLISHED, Outcome
from eval.subject import Subject
from san.jobs import valid_json


def as_text(subject: Subject, outcomes: Sequence[Outcome]) -> str:
    """A table in the form of the paper's table 10."""
    theirs = _published(subject)
    head = f"{'epsilon':<9}{'step':>6}{'iterations':>12}{'starts':>8}"
    head += f"  {'loss':<14}{'success':>9}{'top-1':>10}"
    lines = [subject.as_text()]
    lines.append(head + "  published" * bool(theirs))
    for outcome in outcomes:
        line = f"{_setting(outcome.attack):<51}"
        line += f"{outcome.success:>8.2f}%{outcome.top1:>9.2f}%"
        if outcome.attack in theirs:
            line += "  {:.1f}%, {:.1f}%".format(*theirs[outcome.attack])
        lines.append(line)
    lines.append(
        f"chance: a guess among {subject.num_classes} classes is the target in"
        f" {100 / subject.num_classes:.2f}%"
    )
    return "\n".join([*lines, published.NOTE] if theirs else lines)


def as_json(
    found: Sequence[tuple[Subject, Sequence[Outcome]]], seed: int
) -> str:
    """All figures; success and accuracy in percent."""
    networks = [
        {
            **subject.as_json(),
            "chance": 100 / subject.num_classes,
            "outcomes": [
                _outcome(outcome, _published(subject)) for outcome in outcomes
            ],
        }
        for subject, outcomes in found
    ]
    protocol = " ".join(PROTOCOL.split())
    figures = {"protocol": protocol, "seed": seed, "networks": networks}
    return valid_json.text_of(figures)


def _published(
    subject: Subject,
) -> dict[Attack | None, tuple[float, float]]:
    theirs = published.ATTACKS.get(subject.network or "")
    return dict(zip(PUBLISHED, theirs, strict=True)) if theirs else {}


def _setting(attack: Attack | None) -> str:
    if attack is None:
        return "no attack"
    return (
        f"{attack.epsilon:<9g}{attack.step:>6g}{attack.iterations:>12}"
        f"{attack.starts:>8}  {attack.loss}"
    )


def _outcome(
    outcome: Outcome, theirs: dict[Attack | None, tuple[float, float]]
) -> dict[str, Any]:
    attack = outcome.attack
    entry: dict[str, Any] = {
        "attack": attack and dataclasses.asdict(attack),
        "success": outcome.success,
        "top1": outcome.top1,
    }
    if attack in theirs:
        success, top1 = theirs[attack]
        entry["published_on_imagenet"] = {"success": success, "top1": top1}
    return entry
