"""Which of its three ways every attention block computes in.

The ways themselves are in `san.attention`. The choice is one for the whole
process, as torch's own backend flags are.
"""

import difflib

import gin
import torch

BACKENDS = ("fused", "unfused", "reference")

_backend = "fused"


@gin.configurable(module="san")
def set_attention_backend(name: str = "fused") -> None:
    """Chooses how every attention block computes from now on.

    Args:
      name: "fused" (operators that keep no tensor of K taps per pixel and of
        the layers around them only the input), "unfused" (the operators of
        san.ops and torch's layers one by one) or "reference" (the same in
        plain PyTorch).

    Raises:
      ValueError: if the name is none of these.
    """
    global _backend
    if name not in BACKENDS:
        (nearest,) = difflib.get_close_matches(str(name), BACKENDS, 1, 0)
        raise ValueError(
            "set_attention_backend: name must be one of "
            f"{', '.join(BACKENDS)}, got {name!r}; the nearest is {nearest!r}"
        )
    _backend = name


def attention_backend() -> str:
    """The name that set_attention_backend was last given."""
    return _backend


def runs_fused(x: torch.Tensor) -> bool:
    """Whether a layer computes on this image by the fused operators."""
    return _backend == "fused" and x.device.type in ("cpu", "cuda")
