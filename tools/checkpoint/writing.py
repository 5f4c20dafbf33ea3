"""Files of weights and of what is said of them."""

import hashlib
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from san import digest, safetensors_file
from san.jobs import files, valid_json
from tools.checkpoint import card

_MAX_LISTED = 5


def check_card(path: pathlib.Path) -> None:
    """Refuses a file whose card would take the place of another text.

    Args:
      path: of the weights.

    Raises:
      ValueError: if there is a file of the card's name that is no card.
    """
    other = path.with_suffix(".md")
    if other.exists() and not other.read_bytes().startswith(card.START):
        raise ValueError(
            "checkpoint: --output must leave the name of its model card free,"
            f" got {path} beside {other}, which is another text"
        )


def write_safetensors(
    path: pathlib.Path, model: nn.Module, facts: Mapping[str, Any]
) -> None:
    """Writes weights, and the model card beside them.

    Args:
      path: the file; the card's ends in .md.
      model: with the weights.
      facts: as facts.of_network.

    Raises:
      OSError: if a file cannot be written.
    """
    texts = {
        "format": "pt",  # As readers of such files expect of PyTorch's.
        safetensors_file.FACTS: valid_json.line_of(facts).strip(),
    }
    content = safetensors_file.pack(model.state_dict(), texts)
    sha256 = hashlib.sha256(content).hexdigest()
    parameters = sum(p.numel() for p in model.parameters())
    text = card.text_of(path.name, sha256, facts, parameters)
    # The card last: it is of a file that is there.
    files.write_atomically(path, content)
    files.write_atomically(path.with_suffix(".md"), text.encode())


def write_pth(
    path: pathlib.Path,
    state_dict: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Writes weights as //train:main does, less what training goes on from.

    Args:
      path: the file.
      state_dict: weights by name.
      facts: as facts.kept.

    Raises:
      OSError: if it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"state_dict": dict(state_dict), **facts}, buffer)
    digest.sign(buffer)
    files.write_atomically(path, buffer.getbuffer())


def lines_of(found: Mapping[str, Any]) -> str:
    """What was found in a file, for people."""
    width = max(map(len, found))
    return "\n".join(
        f"{name.replace('_', ' '):{width}}  {_text(value)}"
        for name, value in found.items()
    )


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list) and len(value) > _MAX_LISTED:
        return (
            f"{_text(value[:_MAX_LISTED])} and {len(value) - _MAX_LISTED} more"
        )
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "nothing"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value)
