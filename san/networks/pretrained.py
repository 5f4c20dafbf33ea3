"""Gives a network the weights of a file, but for a head of other classes."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from san import checkpoints
from san.networks.architecture import differences

_HEAD = "fc."


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int | None:
    """Outputs of the network that weights are of; None if they have no head."""
    weight = state_dict.get(f"{_HEAD}weight")
    return None if weight is None or weight.dim() != 2 else len(weight)


def load(
    model: nn.Module,
    checkpoint: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    new_head: bool = False,
) -> str:
    """Gives a model all weights of a file, but for a head that does not fit.

    A head is what is named `fc`. It stays as it was made where the file has
    none, or one of another number of classes.

    Args:
      model: the network. Stays as it is if an error is raised.
      checkpoint: what checkpoints.read_checkpoint has read.
      path: the file.
      new_head: let the head stay as it was made in any case.

    Returns:
      What was left out, and of which file, in a line; "" if nothing was.

    Raises:
      ValueError: if weights are missing, extra or of another shape, or the
        file says that they are of another network.
    """
    state_dict = checkpoints.state_dict_of(checkpoint, path)
    if unlike := differences(checkpoint.get("architecture"), model):
        raise ValueError(
            "load: checkpoint must be of the same network, got"
            f" {unlike}; in {path}. The config.gin of its run has its settings"
        )
    own = {n: t for n, t in model.state_dict().items() if n.startswith(_HEAD)}
    theirs = {n: t for n, t in state_dict.items() if n.startswith(_HEAD)}
    if not new_head and not _is_other_head(own, theirs):
        checkpoints.load_state_dict(model, state_dict, source=str(path))
        return ""
    body = {n: t for n, t in state_dict.items() if n not in theirs}
    checkpoints.load_state_dict(model, body | own, source=str(path))
    dropped = ", ".join(f"{n} {list(t.shape)}" for n, t in theirs.items())
    kept = ", ".join(f"{n} {list(t.shape)}" for n, t in own.items())
    return (
        f"of {path} {f'{dropped} was left out' if dropped else 'no head came'};"
        f" {f'new and untrained: {kept}' if own else 'there is no head'}"
    )


def _is_other_head(
    own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> bool:
    """Whether heads differ in nothing but their classes, or one is missing."""
    if not own or not theirs:
        return bool(own or theirs)
    if own.keys() != theirs.keys():
        return False
    return num_classes_of(own) != num_classes_of(theirs) and all(
        own[name].shape[1:] == theirs[name].shape[1:] for name in own
    )
