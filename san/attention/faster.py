"""What is faster on a GPU: an attention block's fused operator, or its modules.

Times are in `cuda_times`, which says where they come from. Sizes that it does
not list are computed fused, and so is everything on a CPU.
"""

from typing import Any

import torch
from torch import Tensor

from san.attention.cuda_times import BASES, ROWS
from san.backend import attention_backend

_TIMES = {row[:6]: (*row[6:8], BASES[row[8]]) for row in ROWS}

# In which of the listed types the arithmetic is done.
_TYPES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "bfloat16",  # Its kernels differ in the type's name alone.
}


def why_unfused(kind: str, block: Any, like: Tensor) -> str:
    """Why a block is computed by its modules though its operator could.

    Args:
      kind: "pairwise" or "patchwise".
      block: an attention block.
      like: what it is given, or its weights.

    Returns:
      "" unless the backend is "fastest", the device a GPU and the modules
      faster there: with gradients on, forward and backward together.
    """
    if like.device.type != "cuda" or attention_backend() != "fastest":
        return ""
    is_training = torch.is_grad_enabled()
    times = _TIMES.get(
        (
            kind,
            block.kernel_size,
            block.relation_channels,
            block.out_channels,
            _type_name(like),
            "training" if is_training else "inference",
        )
    )
    if times is None:
        return ""
    fused, unfused, basis = times
    if fused <= unfused:
        return ""
    return (
        f"in {'training' if is_training else 'inference'} its modules are"
        f" faster on a GPU, {unfused:g} ms against {fused:g} ({basis});"
        " the backend 'fused' fuses it"
    )


def _type_name(like: Tensor) -> str:
    """The type in which it computes, by autocast too."""
    dtype = like.dtype
    if torch.is_autocast_enabled("cuda") and dtype is torch.float32:
        dtype = torch.get_autocast_dtype("cuda")
    return _TYPES.get(dtype, "another")
