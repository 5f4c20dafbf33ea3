"""How registered operators are differentiated and batched.

In reverse mode, in forward mode and under the transforms of torch.func, in
any order: the rules that an operator comes with call operators again, which
the transforms further out see in turn. torch.library.register_autograd knows
reverse mode outside torch.func alone; with it forward mode gives zeros
without a word.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

# PyTorch has one level of dual numbers. By default its functions would ask a
# variable of Python's, which code compiled by torch.compile does not set.
_LEVEL = 0
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)


class Rules(NamedTuple):
    """The derivatives of an operator.

    Attributes:
      backward: as torch.library.register_autograd takes it.
      setup_context: likewise; None keeps nothing.
      jvp: from (tangents, *arguments) to the tangents of the results. A
        tangent stands where its argument does; what has none has None.
      constants: names of tensors that no gradient is to reach.
      recorded: computes (result, *more) where a gradient may be asked for,
        as an OpOverload of the same arguments; `setup_context` gets it all.
        None for the operator itself.
    """

    backward: Callable[..., Any]
    setup_context: Callable[..., None] | None
    jvp: Callable[..., Any]
    constants: Sequence[str] = ()
    recorded: Any = None


def autograd_kernel(op: Any, rules: Rules) -> Callable[..., Any]:
    """What an operator does at the dispatch key "Autograd".

    Args:
      op: an OpOverload without keyword-only or default arguments.
      rules: its derivatives.

    Returns:
      A kernel for torch.library.Library.impl(..., with_keyset=True).
    """
    function = _reverse_mode(op, rules)

    def kernel(keyset: Any, *args: Any) -> Any:
        if _has_tangents(args):
            return _forward_mode(compute, rules.jvp, keyset, args)
        return compute(keyset, args)

    def compute(keyset: Any, args: Sequence[Any]) -> Any:
        if torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in _tensors(args)
        ):
            if op._schema.is_mutable:  # There is no result to refuse it later.
                return rules.backward()
            flat, lengths = _flattened(args)
            return _apply(function, *flat, lengths, keyset)
        return _below_autograd(op, keyset, args)

    return kernel


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for argument in args:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list):
            yield from _tensors(argument)


def _below_autograd(op: Any, keyset: Any, args: Sequence[Any]) -> Any:
    # Kernels permute what they have made; seen as views, their results could
    # not be changed in place, as those of modules can.
    with (
        torch._C._AutoDispatchBelowAutograd(),
        torch._C._ExcludeDispatchKeyGuard(_VIEWS),
    ):
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


# ---- Forward mode.


def _forward_mode(
    compute: Callable[..., Any],
    jvp: Callable[..., Any],
    keyset: Any,
    args: Sequence[Any],
) -> Any:
    primals = pytree.tree_map_only(Tensor, _primal, args)
    of_outputs = jvp(pytree.tree_map(_tangent, args), *primals)
    # Not of the primals: a backward pass needs the tangents of what it keeps.
    outputs = compute(keyset, args)
    if isinstance(outputs, Tensor):
        return _dual(outputs, of_outputs)
    return tuple(map(_dual, outputs, of_outputs))


def _has_tangents(args: Sequence[Any]) -> bool:
    # Every call asks: what forward_ad.unpack_dual itself calls, and without a
    # graph of what is not kept, takes less than half the time.
    with torch.no_grad():
        for tensor in _tensors(args):
            if torch._VF._unpack_dual(tensor, level=_LEVEL)[1] is not None:
                return True
    return False


def _tangent(argument: Any) -> Tensor | None:
    if not isinstance(argument, Tensor):
        return None
    return forward_ad.unpack_dual(argument, level=_LEVEL).tangent


def _primal(tensor: Tensor) -> Tensor:
    return forward_ad.unpack_dual(tensor, level=_LEVEL).primal


def _dual(primal: Tensor, tangent: Tensor | None) -> Tensor:
    if tangent is None:
        return primal
    return forward_ad.make_dual(primal, tangent, level=_LEVEL)


# ---- Reverse mode.


def _reverse_mode(op: Any, rules: Rules) -> type[torch.autograd.Function]:
    constants = [
        (position, argument.name)
        for position, argument in enumerate(op._schema.arguments)
        if argument.name in rules.constants
    ]

    def forward(ctx: Any, *inputs: Any) -> Any:
        *flat, ctx.lengths, keyset = inputs
        args = _nested(flat, ctx.lengths)
        ctx.needs_input_grad = _nested(ctx.needs_input_grad, ctx.lengths)
        for position, argument in constants:
            if ctx.needs_input_grad[position]:
                raise NotImplementedError(
                    f"{op._opname}: {argument} must not require a gradient, "
                    "got a tensor that does; detach it"
                )
        computed = rules.recorded or op
        if torch._C._are_functorch_transforms_active():
            # On for the transforms further out, off in a Function.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                output = _below_autograd(computed, keyset, args)
        else:
            output = _below_autograd(computed, keyset, args)
        if rules.setup_context is not None:
            rules.setup_context(ctx=ctx, inputs=args, output=output)
        return output if rules.recorded is None else output[0]

    def backward(ctx: Any, *grads: Any) -> Any:
        of_args = rules.backward(ctx, *grads)
        if not isinstance(of_args, tuple):
            of_args = (of_args,)
        flat: list[Tensor | None] = []
        for of_argument, length in zip(of_args, ctx.lengths, strict=True):
            if length is None:
                flat.append(of_argument)
            else:
                flat += of_argument or [None] * length
        return *flat, None, None

    return type(
        f"{op._opname}_derivative",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    # A Function without jvp refuses tangents, of which _forward_mode takes
    # care.
    with forward_ad._set_fwd_grad_enabled(False):
        if not torch._C._are_functorch_transforms_active():
            return function.apply(*inputs)
        # This call is one transform's share already; Function.apply would
        # start again with all of them.
        one_level: Any = super(torch.autograd.Function, function)
        with enable_single_level_autograd_function():
            return one_level.apply(*inputs)


def _flattened(args: Sequence[Any]) -> tuple[list[Any], list[int | None]]:
    """Arguments with those of lists in line, and the lengths of the lists.

    An autograd.Function sees no tensors in lists.
    """
    flat: list[Any] = []
    for argument in args:
        flat += argument if isinstance(argument, list) else [argument]
    lengths = [len(a) if isinstance(a, list) else None for a in args]
    return flat, lengths


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> tuple:
    items = iter(flat)
    return tuple(
        next(items) if length is None else [next(items) for _ in range(length)]
        for length in lengths
    )


# ---- Batches, as torch.library.register_vmap takes them.


def batched_as_samples(op: Any) -> Callable[..., Any]:
    """A rule for operators on tensors [N, ...] that mix no samples."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> Any:
        args = tuple(
            _batch_first(argument, dim, info.batch_size)
            for argument, dim in zip(args, in_dims, strict=True)
        )
        sizes = next(_tensors(args)).shape[:2]
        outputs = op(
            *(a.flatten(0, 1) if isinstance(a, Tensor) else a for a in args)
        )
        if isinstance(outputs, Tensor):
            return outputs.unflatten(0, sizes), 0
        # A result that nobody needs is empty, the same for all samples.
        dims = tuple(0 if output.dim() > 1 else None for output in outputs)
        outputs = tuple(
            output if dim is None else output.unflatten(0, sizes)
            for output, dim in zip(outputs, dims, strict=True)
        )
        return outputs, dims

    return rule


def _batch_first(argument: Any, dim: int | None, size: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if dim is None:
        return argument.expand(size, *argument.shape)
    return argument.movedim(dim, 0)


def batched_in_turn(op: Any) -> Callable[..., Any]:
    """A rule for every operator: one call after the other."""

    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        results = [
            op(*pytree.tree_map(functools.partial(_select, i), args, in_dims))
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        outputs = tuple(map(torch.stack, zip(*results, strict=True)))
        return outputs, (0,) * len(outputs)

    return rule


def _select(index: int, argument: Any, dim: int | None) -> Any:
    return argument if dim is None else argument.select(dim, index)
