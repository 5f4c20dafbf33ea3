"""How an operator is made known to PyTorch and how it calls its kernel.

Holds the torch.library namespace "san". What an operator computes stands in
the file of its name, how it is differentiated in `derivatives`; the kernels
are in `cuda_kernels`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from san.ops.derivatives import (
    Rules,
    autograd_kernel,
    batched_as_samples,
    batched_in_turn,
)
from san.ops.window import Window

_LIBRARY = torch.library.Library("san", "DEF")

# The arguments of san.ops.window.Window.
WINDOW_SCHEMA = (
    "int kernel_size, int stride, int padding, int dilation, str padding_mode"
)

_FORWARD_MODE = "must not be differentiated in forward mode"
_UNFUSED = (
    'inside `with san.use_attention_backend("unfused"):` modules compute by '
    "operators that can be (but not those of a folded network)"
)


def define(
    schema: str,
    implementation: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
    jvp: Callable[..., Any] | None = None,
    constants: Sequence[str] = (),
    recorded: str | None = None,
    mixes_samples: bool = True,
    remedy: str = _UNFUSED,
) -> None:
    """Defines san::<name> for CPU and CUDA, with shapes and derivatives.

    Args:
      schema: name, arguments and results in PyTorch's schema language; no
        argument has a default or is keyword-only.
      implementation: computes the results; called below autograd.
      fake: makes results of the right shape, without values.
      backward: as torch.library.register_autograd takes it; None for an
        operator that has no derivative, which says so.
      setup_context: likewise.
      jvp: see san.ops.derivatives.Rules; None for an operator that refuses
        forward mode.
      constants: names of tensors that must not require a gradient, since
        `backward` has none for them.
      recorded: the name of an operator, defined before, that takes this one's
        place where a gradient may be asked for: its first result is this
        one's, and what `setup_context` is to keep beside it are the others.
      mixes_samples: False where every tensor is [N, ...] and sample n of the
        results comes from sample n alone. Under vmap such an operator is
        called once, others once for each of the batch.
      remedy: what to do instead of a derivative that is refused.
    """
    name = _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, implementation, "CPU")
    _LIBRARY.impl(name, implementation, "CUDA")
    op = getattr(torch.ops.san, name).default
    rules = Rules(
        backward or _refusal(name, _last_derivative(name), remedy),
        setup_context,
        jvp or _refusal(name, _FORWARD_MODE, remedy),
        constants,
        None if recorded is None else getattr(torch.ops.san, recorded).default,
    )
    kernel = autograd_kernel(op, rules)
    _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)
    torch.library.register_fake(op, fake, lib=_LIBRARY)
    if op._schema.is_mutable:  # vmap refuses it.
        return
    batched = batched_in_turn if mixes_samples else batched_as_samples
    torch.library.register_vmap(op, batched(op), lib=_LIBRARY)


def _last_derivative(name: str) -> str:
    if name.endswith("_backward"):
        return "a gradient must not be differentiated again"
    return "must not be differentiated"


def _refusal(name: str, rule: str, remedy: str) -> Callable[..., Any]:
    def refuse(*args: Any) -> Any:
        raise NotImplementedError(f"{name}: {rule}; {remedy}")

    return refuse


def run_kernel(
    kernel: Callable[..., None],
    *tensors: torch.Tensor | None,
    window: Window,
) -> None:
    """Calls a kernel on dense tensors, on the current stream."""
    seen = [t if t is None else t.detach() for t in tensors]
    device = next(t.device for t in seen if t is not None)
    if device.type == "cpu":
        kernel(*seen, **window._asdict())
        return
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream().cuda_stream
        kernel(*seen, **window._asdict(), stream=stream)


def image_format(image: torch.Tensor) -> torch.memory_format:
    """The layout that a kernel keeps an image and all images like it in.

    Channels-last if the image is in it, on the CPU; else row-major, of which
    a copy is made where need be.
    """
    if (
        image.device.type == "cpu"
        and not image.is_contiguous()
        and image.is_contiguous(memory_format=torch.channels_last)
    ):
        return torch.channels_last
    return torch.contiguous_format


def empty_image(
    like: torch.Tensor, shape: Sequence[int], memory_format: torch.memory_format
) -> torch.Tensor:
    """An image without values of dtype and device of another one."""
    return torch.empty(
        tuple(shape),
        dtype=like.dtype,
        device=like.device,
        memory_format=memory_format,
    )


def register_autocast(name: str) -> None:
    """Makes san::<name> compute in the current autocast dtype.

    torch.library.register_autocast fixes one dtype for ever; this follows
    torch.autocast(dtype=...), as PyTorch's own convolutions do.
    """
    op = getattr(torch.ops.san, name)
    for device_type in ("cpu", "cuda"):
        _LIBRARY.impl(
            name, _autocast(op, device_type), f"Autocast{device_type.upper()}"
        )


def _autocast(op: Any, device_type: str) -> Callable[..., Any]:
    def in_autocast_dtype(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device_type)
        cast = [_cast(argument, device_type, dtype) for argument in args]
        with torch.autocast(device_type, enabled=False):
            return op(*cast)

    return in_autocast_dtype


def _cast(argument: Any, device_type: str, dtype: torch.dtype) -> Any:
    # float64 stays, as in PyTorch's own autocast rules.
    if (
        isinstance(argument, torch.Tensor)
        and argument.device.type == device_type
        and argument.is_floating_point()
        and argument.dtype != torch.float64
    ):
        return argument.to(dtype)
    return argument
