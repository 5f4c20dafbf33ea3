"""Copies of networks without values, hooks and wrappers.

A copy shares no tensor and no module with its original, whose memory is not
read: every tensor that the original holds, wherever, becomes a twin on the
device "meta".
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

_WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel
_WEIGHT_MAKERS = WeightNorm, SpectralNorm, BasePruningMethod
_HOOKS = [name for name in vars(nn.Module()) if "_hooks" in name]
_COPYABLE = "be one that copy.deepcopy copies"


class UnsupportedError(Exception):
    """What a network must be instead, and what it is."""

    def __init__(self, rule: str, got: str) -> None:
        super().__init__(f"model must {rule}, got {got}")


def copy_without_values(model: nn.Module) -> nn.Module:
    """A copy in eval mode with meta tensors, for calls of its forward.

    Tied tensors stay tied, torch.compile, DataParallel and
    DistributedDataParallel are taken off, and no hook is left. Hooks that make
    weights (of weight_norm, spectral_norm and pruning) have made them.

    Raises:
      UnsupportedError: if the model cannot be copied in this way.
    """
    modules = list(model.modules())
    for module in modules:
        _check(module)
    copied = _copy(model, modules)
    for module in copied.modules():
        call_directly(module, module.forward)
    return copied


def call_directly(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Lets a call of the module be one of `forward`, without any hook.

    Not even of those for all modules: what Module.compile does.
    """
    module._compiled_call_impl = forward


def twin(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor like this one, on the device "meta".

    Raises:
      UnsupportedError: if it is more than sizes, strides and values.
    """
    kind = type(tensor)
    if (
        tensor.is_quantized
        or tensor.layout is not torch.strided
        or tensor.is_nested
        or is_lazy(tensor)
        or kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    ):
        raise UnsupportedError(
            "hold dense tensors that have a shape",
            f"{kind.__name__} of {tensor.layout} and {tensor.dtype}",
        )
    meta = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
    )
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(meta, requires_grad=tensor.requires_grad)
    return meta if kind is torch.Tensor else meta.as_subclass(kind)


class _Twins(TorchFunctionMode):
    """Lets copies of tensors be twins on the device "meta"."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.clone:  # As torch.nn.Parameter copies.
            return twin(args[0])
        if func is not torch.Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), twin(tensor))


def _check(module: nn.Module) -> None:
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("be Python, not TorchScript", name)
    for value in vars(module).values():
        if isinstance(value, torch.ScriptObject):
            raise UnsupportedError("hold tensors only, not packed ones", name)
    for key, tensor in (
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ):
        if is_lazy(tensor):
            raise UnsupportedError(
                "be initialized, by a call, before it is counted",
                f"{name} whose {key} has no shape yet",
            )


def _copy(model: nn.Module, modules: list[nn.Module]) -> nn.Module:
    """Deep, but for hooks and wrappers."""
    memo = _without_hooks(modules)
    try:
        with _Twins():
            for module in reversed(modules):  # Inner wrappers first.
                inner = _wrapped(module)
                if inner is not None:
                    memo[id(module)] = copy.deepcopy(inner, memo)
            copied = copy.deepcopy(model, memo)
    except UnsupportedError:
        raise
    except Exception as error:
        raise UnsupportedError(_COPYABLE, said(error)) from error
    live = set(map(id, modules))
    for module in copied.modules():
        if id(module) in live:
            got = f"{type(module).__name__}, whose copy is itself"
            raise UnsupportedError(_COPYABLE, got)
    copied.eval()
    for module in modules:
        _make_weights(module, memo.get(id(module)))
    return copied


def _without_hooks(modules: list[nn.Module]) -> dict[int, Any]:
    """What copy.deepcopy takes for the copies of the registries of hooks."""
    registries = [
        vars(module)[name]
        for module in modules
        for name in _HOOKS
        if name in vars(module)
    ]
    return {id(registry): type(registry)() for registry in registries}


def _wrapped(module: nn.Module) -> nn.Module | None:
    """What a wrapper computes by, None of any other module."""
    if isinstance(module, _WRAPPERS):
        return module.module
    # Asked by name, as the class is imported by torch.compile only.
    if type(module).__name__ == "OptimizedModule":
        return dict(module.named_children()).get("_orig_mod")
    return None


def _make_weights(module: nn.Module, copied: nn.Module | None) -> None:
    """Lets the hooks of `module` that make weights make those of its copy."""
    for hook in vars(module)["_forward_pre_hooks"].values():
        if copied is not None and isinstance(hook, _WEIGHT_MAKERS):
            hook(copied, None)


def said(error: BaseException) -> str:
    """The kind and the first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
