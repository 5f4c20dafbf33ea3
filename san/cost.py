"""What a network costs: parameters and multiply-accumulates (MACs).

Runs a copy of the network without values and adds up what its operators
cost. The rules are in `san.counting`. No measurement of time or memory.
"""

import functools
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from san.backend import use_attention_backend
from san.counting.copies import (
    UnsupportedError,
    call_directly,
    copy_without_values,
    said,
    twin,
)
from san.counting.rules import (
    FUNCTIONS,
    has_rule,
    macs_of,
    uncounted_macs_of,
)


class _Counted(NamedTuple):
    parameters: int
    macs: int


class Cost(_Counted):
    """Number of parameters and of MACs for one image: a pair of integers.

    Attributes:
      parameters: of the model.
      macs: as the paper counts them.
      honest_macs: those, and what the paper leaves out: the dot products of
        relations.
    """

    honest_macs: int

    def __new__(
        cls, parameters: int, macs: int, honest_macs: int | None = None
    ) -> "Cost":
        """Makes one; honest_macs are macs where nothing else is said."""
        cost = super().__new__(cls, parameters, macs)
        cost.honest_macs = macs if honest_macs is None else honest_macs
        return cost


def count_cost(model: nn.Module, input_size: Sequence[int]) -> Cost:
    """Counts a model's parameters and its MACs for one image in eval mode.

    MACs as the table of "Exploring Self-attention for Image Recognition",
    CVPR 2020, has them, and more operators in the same way:

    - convolutions, transposed ones, matrix products and attention: their
      multiply-adds, and 1 per element of a convolution's bias;
    - norms (batch, layer, group, instance, RMS): 2 per element; variances
      and norms of vectors 1;
    - ReLU and all other activations: 1 per element;
    - poolings and means: 1 per element of their input; interpolation: 1 per
      pixel it reads;
    - subtraction, subtraction2, and correlation of single channels: 1 per
      element of the output; aggregation: K taps per element;
    - correlation that sums, the dot products of a relation: nothing, since
      the published counter does not see them; honest_macs has them;
    - a fused operator: what it computes, by these rules; its pooling reads
      what its ReLU makes;
    - nothing: softmax, sums, elementwise arithmetic, copies, lookups; and
      making weights, as weight_norm, pruning and parametrizations do.

    Runs a copy of the model on tensors without values, so that neither its
    device nor the image's size costs time or memory. Neither the model nor
    anything of the process changes, and other threads can use both meanwhile.
    Hooks do not run, of the model or of all modules. Attention blocks are
    counted one by one, whatever the backend.

    Args:
      model: maps images `[1, *input_size]` to anything. What torch.compile,
        DataParallel or DistributedDataParallel wraps is counted.
      input_size: (channels, height, width) of the image.

    Returns:
      Cost(parameters, macs), with honest_macs beside.

    Raises:
      ValueError: if input_size is not three positive integers; or the model
        cannot be copied, cannot run without values (as what reads them by
        item() or numpy(), or is lazy, quantized or TorchScript), or uses an
        operator whose cost is not known.
    """
    _check(model, input_size)
    sizes = [operator.index(size) for size in input_size]
    try:
        counter = _in_another_thread(lambda: _count_macs(model, sizes))
    except UnsupportedError as unsupported:
        raise ValueError(
            f"count_cost: {unsupported}"
        ) from unsupported.__cause__
    return Cost(
        sum(p.numel() for p in model.parameters()),
        counter.macs,
        counter.macs + counter.uncounted,
    )


def _check(model: Any, input_size: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(
            "count_cost: model must be a torch.nn.Module, "
            f"got {type(model).__name__}"
        )
    is_sequence = isinstance(input_size, Sequence)
    if (
        not is_sequence
        or len(input_size) != 3
        or not all(map(_is_size, input_size))
    ):
        raise ValueError(
            "count_cost: input_size must be (channels, height, width), three "
            f"positive integers, got {_shown(input_size)}"
        )


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)}"
    return repr(value)


def _is_size(value: Any) -> bool:
    return (
        hasattr(value, "__index__")
        and not isinstance(value, bool)
        and operator.index(value) >= 1
    )


def _in_another_thread(
    call: Callable[[], "_MacCounter"],
) -> "_MacCounter":
    """Calls where no mode that the caller is in sees or changes anything.

    Modes of torch belong to a thread: FlopCounterMode, autocast,
    inference_mode, set_default_device and the like.
    """
    results: list[_MacCounter] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="count_cost", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _count_macs(model: nn.Module, input_size: Sequence[int]) -> "_MacCounter":
    counter = _MacCounter()
    with torch.no_grad():
        network = copy_without_values(model)
        for module in network.modules():
            if isinstance(module, ParametrizationList):
                call_directly(module, counter.paused(module.forward))
        image = torch.empty(
            (1, *input_size), dtype=_dtype(network), device="meta"
        )
        error = counter.run(network, image)
    if isinstance(error, UnsupportedError):
        raise error
    if counter.unknown:
        names = ", ".join(sorted(counter.unknown))
        raise UnsupportedError("consist of operators of known cost", names)
    if error is not None:
        raise UnsupportedError(
            f"run on an image {list(image.shape)} of {image.dtype} without "
            'values, on the device "meta"',
            said(error),
        ) from error
    return counter


def _dtype(network: nn.Module) -> torch.dtype:
    """That of images: of the first parameter, or else buffer, that has one."""
    return next(
        (
            tensor.dtype
            for tensor in (*network.parameters(), *network.buffers())
            if tensor.is_floating_point()
        ),
        torch.float32,
    )


class _MacCounter(TorchDispatchMode):
    """Adds up the MACs of every operator that runs under it.

    All tensors that an operator makes are on the device "meta", and so are
    all it changes: one that the network got hold of elsewhere stays as it is.

    Attributes:
      macs: so far.
      uncounted: what the paper does not count.
      unknown: names of operators whose MACs are not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.uncounted = 0
        self.unknown: set[str] = set()
        self._is_paused = False

    def run(self, network: nn.Module, image: torch.Tensor) -> Exception | None:
        """Counts one call of the network, up to an error if it makes one."""
        with use_attention_backend("unfused"), self, _Functions(self):
            try:
                network(image)
            except Exception as error:
                return error
        return None

    def paused(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same without being counted."""

        def call_uncounted(*args: Any, **kwargs: Any) -> Any:
            with self._pause():
                return call(*args, **kwargs)

        return call_uncounted

    @contextmanager
    def _pause(self) -> Iterator[None]:
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = _without_values(func, args, kwargs or {})
        if not has_rule(func):
            # Where inference_mode hides what an operator is made of.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._meet_unknown(func)
        result = func(*args, **kwargs)
        self._add(macs_of(func, result, args), uncounted_macs_of(func, args))
        return result

    def call_by_rule(self, rule: Callable[..., int], call: Any) -> Any:
        """Calls, and counts by a rule in place of what it is made of."""
        with self._pause():
            result = call()
        self._add(rule(result))
        return result

    def _meet_unknown(self, func: Any) -> None:
        if not self._is_paused:
            self.unknown.add(str(func.overloadpacket))

    def _add(self, macs: int, uncounted: int = 0) -> None:
        if not self._is_paused:
            self.macs += macs
            self.uncounted += uncounted


class _Functions(TorchFunctionMode):
    """Lets a counter see functions that PyTorch makes of simpler operators."""

    def __init__(self, counter: _MacCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        call = functools.partial(func, *args, **(kwargs or {}))
        rule = FUNCTIONS.get(func)
        if rule is None:
            return call()
        return self._counter.call_by_rule(rule, call)


def _without_values(
    func: Any, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The arguments of an operator, on the device "meta".

    But those of one that computes constants of constants, such as an item of
    torch.tensor(...): a tensor without values has no items.
    """
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("meta")}
    if kwargs.get("generator") is not None:
        kwargs = {**kwargs, "generator": None}  # It would be used up.
    tensors: list[torch.Tensor] = []
    tree_map(
        lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None,
        (args, kwargs),
    )
    is_constant = all(t.device.type == "cpu" for t in tensors)
    if is_constant and not _changes(func):
        return args, kwargs
    return tree_map(_as_meta, (args, kwargs))


def _changes(func: Any) -> bool:
    """Whether an operator writes into its arguments."""
    return any(
        argument.alias_info is not None and argument.alias_info.is_write
        for argument in func._schema.arguments
    )


def _as_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not value.is_meta:
        return twin(value)
    return value
