"""Copies of networks that others may go on changing."""

import copy
import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def detached_copy(op: str, model: nn.Module) -> nn.Module:
    """A deep copy without gradients' history.

    Unlike copy.deepcopy it takes networks whose weights were computed from
    others, as pruning and the older weight norms do.

    Args:
      op: who asks, for the error.
      model: any network; it stays as it is.

    Raises:
      ValueError: if something in it cannot be copied, or its copy would go on
        calling modules of the original.
    """
    _require_standing_alone(op, model)
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


def _require_standing_alone(op: str, model: nn.Module) -> None:
    """Raises ValueError if a method that was replaced holds on to the model.

    A function is not copied, and neither is what it refers to; a bound method
    (types.MethodType) is.
    """
    modules = {id(module) for module in model.modules()}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, types.MethodType) or not callable(value):
                continue
            if any(id(held) in modules for held in _held_by(value)):
                raise ValueError(
                    f"{op}: model must be one whose copy stands alone, got "
                    f"{name or 'one'} with a {key} that refers to the model "
                    "itself; make it a method by types.MethodType"
                )


def _held_by(function: Any) -> Iterator[Any]:
    """What a function or a partial one refers to; of methods their object."""
    if isinstance(function, functools.partial):
        values = [function.func, *function.args, *function.keywords.values()]
    else:
        cells = getattr(function, "__closure__", None) or ()
        values = [cell.cell_contents for cell in cells]
        values += getattr(function, "__defaults__", None) or ()
        if isinstance(function, types.FunctionType):
            names = function.__globals__
            values += [
                names[n] for n in function.__code__.co_names if n in names
            ]
    for value in values:
        if isinstance(value, types.MethodType):
            yield value.__self__
        elif isinstance(value, functools.partial):
            yield from _held_by(value)
        else:
            yield value
