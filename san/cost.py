"""What a network costs: parameters and multiply-accumulates (MACs).

Counts as the paper's table does: convolutions, linear layers, BN, ReLU,
pooling and the san operators count, softmax and additions do not. No
measurement of time or memory.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from san.backend import attention_backend, set_attention_backend


class Cost(NamedTuple):
    """Number of parameters and of MACs for one image."""

    parameters: int
    macs: int


def count_cost(model: nn.Module, input_size: Sequence[int]) -> Cost:
    """Counts a model's parameters and its MACs for one image in eval mode.

    Runs the model on tensors without values, so that neither its device nor
    the image's size costs time or memory. The model stays as it is.

    Args:
      model: maps images [1, *input_size] to anything.
      input_size: (channels, height, width) of the image.

    Returns:
      Cost(parameters, macs).

    Raises:
      ValueError: if input_size is not three positive integers.
    """
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(
            "count_cost: input_size must be (channels, height, width), "
            f"got {input_size!r}"
        )
    shapes = {
        name: tensor.to("meta")
        for name, tensor in itertools.chain(
            model.named_parameters(), model.named_buffers()
        )
    }
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    image = torch.empty((1, *input_size), dtype=dtype, device="meta")
    counter = _MacCounter()
    with torch.no_grad(), _in_eval_mode(model), _one_by_one(), counter:
        torch.func.functional_call(model, shapes, (image,))
    return Cost(sum(p.numel() for p in model.parameters()), counter.macs)


@contextlib.contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts every module back into the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _one_by_one() -> Iterator[None]:
    """Lets attention blocks use the operators that are counted."""
    chosen = attention_backend()
    set_attention_backend("unfused")
    try:
        yield
    finally:
        set_attention_backend(chosen)


class _MacCounter(TorchDispatchMode):
    """Adds up the MACs of every operator that runs under it."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        count = _MACS.get(str(func.overloadpacket))
        if count is not None:
            self.macs += count(result, *args)
        return result


def _convolution(
    output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *_: Any,
) -> int:
    num_pixels = output.numel() // output.shape[1]
    num_biases = 0 if bias is None else bias.numel()
    return num_pixels * (weight.numel() + num_biases)


def _linear(
    output: torch.Tensor,
    bias: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
) -> int:
    return output.numel() * input.shape[-1]


def _linear_without_bias(
    output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor
) -> int:
    return output.numel() * input.shape[-1]


def _batch_norm(output: Any, input: torch.Tensor, *_: Any) -> int:
    return 2 * input.numel()


def _per_input(output: Any, input: torch.Tensor, *_: Any) -> int:
    return input.numel()


def _subtraction(output: torch.Tensor, *_: Any) -> int:
    return output.numel()


def _aggregation(
    output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, *_: Any
) -> int:
    return output.numel() * weight.shape[2]


# MACs of an operator from its result and its positional arguments.
_MACS: dict[str, Callable[..., int]] = {
    "aten.convolution": _convolution,
    "aten.addmm": _linear,
    "aten.mm": _linear_without_bias,
    "aten.native_batch_norm": _batch_norm,
    "aten.relu": _per_input,
    "aten.relu_": _per_input,
    "aten.max_pool2d_with_indices": _per_input,
    "aten.avg_pool2d": _per_input,
    "aten._adaptive_avg_pool2d": _per_input,
    "aten.mean": _per_input,  # Global average pooling.
    "san.subtraction2": _subtraction,
    "san.aggregation": _aggregation,
}
