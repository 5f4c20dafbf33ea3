"""Copies of networks that others may go on changing."""

import copy

from torch import Tensor, nn


def detached_copy(op: str, model: nn.Module) -> nn.Module:
    """A deep copy without gradients' history.

    Unlike copy.deepcopy it takes networks whose weights were computed from
    others, as pruning and the older weight norms do.

    Args:
      op: who asks, for the error.
      model: any network; it stays as it is.

    Raises:
      ValueError: if something in it cannot be copied.
    """
    memo: dict[int, Tensor] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{op}: model must be one that copy.deepcopy can copy, got "
            f"{type(model).__name__}: {error}"
        ) from error
