"""Why a module is not exactly what a fused operator computes, in words.

Every function gives "" where nothing speaks against the operator, else what
does. They look at all that PyTorch lets people do to a module: another type,
other settings, hooks, parametrizations (which change the type), pruning and
the older weight norms (which are hooks), methods replaced on the instance or
the class, other kinds of tensors.

Asked at every call of a network, so written to be fast; and traced by
torch.compile, so in plain words of Python.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from san.backend import FUSING, attention_backend
from san.norms import SyncBatchNorm
from san.ops.window import DTYPES

NORMS = (nn.BatchNorm2d, SyncBatchNorm, nn.SyncBatchNorm)

# Fake and functional tensors are what torch.export computes on.
_TENSORS = (Tensor, nn.Parameter, FakeTensor, FunctionalTensor)
# What a call of a module runs of its class.
_METHODS = (
    "__call__",
    "_call_impl",
    "_check_input_dim",
    "_conv_forward",
    "forward",
)


def methods_of(kind: type, *others: str) -> dict[str, Any]:
    """The methods that decide what calling a module of a class computes.

    As they are now: taken when the class was made, to be compared with what
    people have put in their place since.
    """
    names = (*_METHODS, *others)
    return {name: getattr(kind, name) for name in names if hasattr(kind, name)}


_TORCHS = {
    kind: methods_of(kind)
    for kind in (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Sequential, *NORMS)
}


def _functions() -> tuple[Any, ...]:
    """What the modules call in turn, which profilers replace."""
    return (
        nn.Module.__call__,
        nn.Module._call_impl,
        F.batch_norm,
        F.conv2d,
        F.max_pool2d,
        F.relu,
        torch.batch_norm,
        torch.max_pool2d,
        torch.relu,
        Tensor.softmax,
    )


_FUNCTIONS = _functions()


def why_nothing(like: Tensor) -> str:
    """Why no group at all is fused for images like this one."""
    if (backend := attention_backend()) not in FUSING:
        return f"the attention backend is {backend!r}"
    if type(like) not in _TENSORS:
        return f"tensors are of type {type(like).__name__}"
    if like.device.type not in ("cpu", "cuda"):
        return f"tensors are on {like.device}"
    if like.dtype not in DTYPES:
        return f"tensors are {like.dtype}"
    if like.layout is not torch.strided or like.is_nested:
        return "tensors are not dense"
    return why_watched()


def why_watched() -> str:
    """Why every module may be seen at work, or something else called."""
    if why := why_all_hooked():
        return why
    # torch.export replaces some of them too, and calls what they were.
    if not torch.compiler.is_compiling() and (why := _why_torch_changed()):
        return why
    return why_transformed()


def _why_torch_changed() -> str:
    if (now := _functions()) != _FUNCTIONS:
        for function, replaced in zip(_FUNCTIONS, now, strict=True):
            if replaced is not function:
                return f"{function.__qualname__} of torch was replaced"
    if torch._C._len_torch_function_stack() > 0:
        for mode in _get_current_function_mode_stack():
            if not isinstance(mode, DeviceContext):
                return f"the mode {type(mode).__name__} is active"
    return ""


def why_all_hooked() -> str:
    """Why every module has to be called, whatever it computes."""
    if (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    ):
        return "a hook on all modules is registered"
    return ""


def why_transformed() -> str:
    """Why derivatives may be asked for that no fused operator has."""
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return ""


def why_not_plain(name: str, module: Any, kinds: tuple[type, ...]) -> str:
    """Why calling a module may do more than one of these types says."""
    kind = type(module)
    if kind not in kinds:
        return f"{name} is a {kind.__name__}, not a {kinds[0].__name__}"
    return why_hooked(name, module) or why_replaced(name, module)


def why_hooked(name: str, module: Any) -> str:
    """Why a module has to be called, whatever it computes."""
    if module._forward_hooks:
        return f"{name} has a forward hook"
    if module._forward_pre_hooks:
        return f"{name} has a forward pre-hook"
    if module._backward_hooks or module._backward_pre_hooks:
        return f"{name} has a backward hook"
    return ""


def why_replaced(name: str, module: Any) -> str:
    """Why a module does not run the methods of its class as torch wrote it."""
    return why_overridden(name, module, _TORCHS[type(module)])


def why_overridden(name: str, module: Any, methods: dict[str, Any]) -> str:
    """Why a module does not compute what its class said when it was made.

    Args:
      name: of the module.
      module: of that class or a subclass.
      methods: of the class; see methods_of.
    """
    own, actual = module.__dict__, type(module)
    if "forward" in own or "_conv_forward" in own:
        return f"{name} has a forward of its own"
    if actual.forward is not methods["forward"]:
        return f"{actual.__name__} has a forward of its own"
    # Each question takes a compiler milliseconds, and torch.export replaces
    # the __call__ of all modules.
    if torch.compiler.is_compiling():
        return ""
    if "_compiled_call_impl" in own:
        return f"{name} is compiled by itself"
    for method, function in methods.items():
        if method in own:
            return f"{name} has a {method} of its own"
        if getattr(actual, method) is not function:
            return f"{actual.__name__} has a {method} of its own"
    return ""


def channels_of(conv: Any) -> tuple[int, int]:
    """How many channels a convolution makes, and of how many."""
    shape = conv._parameters["weight"].shape
    return shape[0], shape[1]


def why_not_channels(name: str, norm: Any, channels: int) -> str:
    """Why a norm does not go with its neighbour."""
    if norm.num_features == channels:
        return ""
    return f"{name} has {norm.num_features} channels beside {channels}"


def why_not_relu(name: str, module: Any) -> str:
    """Why a module is not max(0, x)."""
    return why_not_plain(name, module, (nn.ReLU,))


def why_not_pool(name: str, module: Any) -> str:
    """Why a module is not the maximum of 2 x 2 pixels."""
    why = why_not_plain(name, module, (nn.MaxPool2d,))
    if why:
        return why
    settings = (
        _pair(module.kernel_size),
        _pair(module.stride),
        _pair(module.padding),
        _pair(module.dilation),
        module.ceil_mode,
        module.return_indices,
    )
    if settings != ((2, 2), (2, 2), (0, 0), (1, 1), False, False):
        return f"{name} does not pool 2 x 2 pixels"
    return ""


def _pair(setting: Any) -> Any:
    return setting if isinstance(setting, tuple) else (setting, setting)


def why_not_pointwise(name: str, module: Any, like: Tensor) -> str:
    """Why a module is not a 1x1 convolution of images like this one."""
    why = why_not_plain(name, module, (nn.Conv2d,)) or _why_not_held(
        name, module, ("weight", "bias")
    )
    if why:
        return why
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    if (
        module.kernel_size != (1, 1)
        or module.stride != (1, 1)
        or module.padding not in ((0, 0), "valid", "same")
        or module.padding_mode != "zeros"
        or module.groups != 1
        or weight is None
        or weight.dim() != 4
        or weight.shape[2:] != (1, 1)
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        return f"{name} is no plain 1x1 convolution"
    why = why_no_tensor(name, "weight", weight, like)
    if why or bias is None:
        return why
    return why_no_tensor(name, "bias", bias, like)


def _why_not_held(
    name: str,
    module: Any,
    parameters: tuple[str, ...],
    buffers: tuple[str, ...] = (),
) -> str:
    """Why a module has other things than its own tensors by their names."""
    for key in parameters:
        if key not in module._parameters:
            return f"{name}.{key} is no parameter"
    for key in buffers:
        if key not in module._buffers:
            return f"{name}.{key} is no buffer"
    return ""


def why_not_norm(name: str, module: Any, like: Tensor) -> str:
    """Why a module is not a batch norm of images like this one."""
    why = why_not_plain(name, module, NORMS) or _why_not_held(
        name, module, ("weight", "bias"), ("running_mean", "running_var")
    )
    if why:
        return why
    parameters, buffers = module._parameters, module._buffers
    mean, variance = buffers["running_mean"], buffers["running_var"]
    if (mean is None) != (variance is None):
        return f"{name} has one running statistic of two"
    if not module.eps > 0:
        return f"{name}.eps is {module.eps}"
    features, dtype = module.num_features, None
    for key, tensor in (
        ("weight", parameters["weight"]),
        ("bias", parameters["bias"]),
        ("running_mean", mean),
        ("running_var", variance),
    ):
        if tensor is None:
            continue
        if tensor.dim() != 1 or tensor.shape[0] != features:
            return f"{name}.{key} is not a vector of num_features"
        if tensor.dtype != dtype and dtype is not None:
            return f"{name} is of several dtypes"
        dtype = tensor.dtype
        why = why_no_tensor(name, key, tensor, like, is_norm=True)
        if why:
            return why
    return ""


def why_no_tensor(
    name: str, key: str, tensor: Any, like: Tensor, is_norm: bool = False
) -> str:
    """Why a parameter or buffer does not go with images like this one.

    Norms of half types may hold float32; autocast joins float32 and halves.
    """
    if type(tensor) not in _TENSORS or tensor.layout is not torch.strided:
        return f"{name}.{key} is a {type(tensor).__name__}"
    if tensor.device != like.device:
        return (
            f"{name}.{key} is on {tensor.device}, the images are on "
            f"{like.device}"
        )
    dtype = tensor.dtype
    if dtype == like.dtype or (
        torch.float64 not in (dtype, like.dtype)
        and dtype in DTYPES
        and (
            dtype == torch.float32
            if is_norm
            else torch.is_autocast_enabled(like.device.type)
        )
    ):
        return ""
    return f"{name}.{key} is {dtype}, the images are {like.dtype}"
