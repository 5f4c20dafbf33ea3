"""Which of its ways every attention block computes in.

The ways themselves are in `san.attention` and `san.fusion`. The choice is one
for the whole process, as torch's own backend flags are, unless a thread or an
asyncio task makes its own for a while.
"""

import contextlib
import contextvars
import difflib
import threading
from collections.abc import Iterator

import gin
import torch

BACKENDS = ("fastest", "fused", "unfused", "reference")
# Those by which fused operators compute.
FUSING = BACKENDS[:2]

_DEFAULT = "fastest"
_of_process = _DEFAULT
_of_task: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "san_attention_backend", default=None
)


class _OfThread(threading.local):
    """What _of_task says, for torch.compile, which traces no ContextVar."""

    def __init__(self) -> None:
        # Of each thread from the start: compiled code does not look again for
        # an attribute that only the class had when it was compiled.
        self.name: str | None = None


_of_thread = _OfThread()


@gin.configurable(module="san")
def set_attention_backend(name: str = _DEFAULT) -> None:
    """Chooses how every attention block of the process computes from now on.

    Args:
      name: "fused" (operators that keep no tensor of K taps per pixel and of
        the layers around them only the input, wherever they compute exactly
        what the modules say), "unfused" (the operators of san.ops and
        torch's layers one by one), "reference" (the same in plain PyTorch),
        or "fastest": as "fused", but on a GPU those attention blocks
        unfused that are faster so by san.attention.cuda_times, at the price
        of tensors of K taps per pixel.

    Raises:
      ValueError: if the name is none of these.
    """
    global _of_process
    _check("set_attention_backend", name)
    _of_process = name


@contextlib.contextmanager
def use_attention_backend(name: str) -> Iterator[None]:
    """Chooses how attention blocks compute inside a `with` block.

    For this thread and this asyncio task alone; others go on as they were.
    Code under torch.compile sees the choice of its thread. What is computed
    again in a backward pass, by torch.utils.checkpoint, needs the same choice
    there: keep the backward pass inside, or hand checkpoint a context_fn.

    Args:
      name: as for set_attention_backend.

    Raises:
      ValueError: if the name is none of these.
    """
    _check("use_attention_backend", name)
    before = _of_thread.name
    _of_thread.name = name
    if torch.compiler.is_dynamo_compiling():
        try:
            yield
        finally:
            _of_thread.name = before
        return
    token = _of_task.set(name)
    try:
        yield
    finally:
        _of_task.reset(token)
        # Of what is left, not of before: other tasks may have come and gone.
        _of_thread.name = _of_task.get()


def attention_backend() -> str:
    """The name of the way in which attention blocks compute here and now."""
    if torch.compiler.is_dynamo_compiling():
        return _of_thread.name or _of_process
    return _of_task.get() or _of_process


def _check(function: str, name: str) -> None:
    if name not in BACKENDS:
        (nearest,) = difflib.get_close_matches(str(name), BACKENDS, 1, 0)
        raise ValueError(
            f"{function}: name must be one of {', '.join(BACKENDS)}, "
            f"got {name!r}; the nearest is {nearest!r}"
        )
