"""Accuracies on rotated images, as text and as JSON."""

from collections.abc import Sequence

from eval import published
from eval.rotations import Accuracies
from eval.subject import Subject
from eval.validation import Result
from san.jobs import valid_json


def as_text(subject: Subject, found: Accuracies) -> str:
    """A table in the form of the paper's table 9, then the other angles."""
    theirs = published.ROTATIONS.get(subject.network or "", ())
    head = f"{'rotated by':<16}{'top-1':>9}{'top-5':>10}"
    lines = [subject.as_text()]
    lines.append(head + "    published top-1, top-5" * bool(theirs))
    for place, (name, result) in enumerate(found.orientations.items()):
        line = _line(name, result)
        if theirs:
            top1, top5 = theirs[place]
            line += f"{top1:>20.1f}%{top5:>6.1f}%"
        lines.append(line)
    lines += [
        _line(f"{angle:g} degrees", result)
        for angle, result in found.angles.items()
    ]
    return "\n".join([*lines, published.NOTE] if theirs else lines)


def as_json(found: Sequence[tuple[Subject, Accuracies]], fill: str) -> str:
    """All figures, accuracies in percent."""
    networks = [
        {
            **subject.as_json(),
            "orientations": {
                name: _accuracy(result)
                for name, result in accuracies.orientations.items()
            },
            "angles": [
                {"degrees": angle, **_accuracy(result)}
                for angle, result in accuracies.angles.items()
            ],
            "published_on_imagenet": _published(subject, accuracies),
        }
        for subject, accuracies in found
    ]
    return valid_json.text_of({"fill": fill, "networks": networks})


def _line(name: str, result: Result) -> str:
    return f"{name:<16}{result.top1:>8.2f}%{result.top5:>9.2f}%"


def _accuracy(result: Result) -> dict[str, float]:
    return {"top1": result.top1, "top5": result.top5, "loss": result.loss}


def _published(
    subject: Subject, found: Accuracies
) -> dict[str, dict[str, float]] | None:
    theirs = published.ROTATIONS.get(subject.network or "")
    if theirs is None:
        return None
    return {
        name: {"top1": top1, "top5": top5}
        for name, (top1, top5) in zip(found.orientations, theirs, strict=True)
    }
