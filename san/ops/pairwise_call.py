"""How the operators of pairwise attention call their kernels.

The tensors as the kernels take them, the stream, and the memory that kernels
on CUDA need beside their results. The operators are in `pairwise_core`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import cuda_kernels


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What features of this dtype are computed in: half types in float32."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def dense_image(image: Tensor) -> Tensor:
    """[N, C, H, W] of any strides as a dense [N, H, W, C] for the kernels.

    Those of CUDA read and write half types themselves.
    """
    image = image.detach().permute(0, 2, 3, 1)
    if image.device.type == "cpu":
        image = image.to(compute_dtype(image.dtype))
    return image.contiguous()


def like_image(image: Tensor) -> Tensor:
    """Like [N, C, H, W], in channels-last; without values."""
    batch, channels, height, width = image.shape
    like = image.new_empty((batch, height, width, channels))
    return like.permute(0, 3, 1, 2)


def matrix(tensor: Tensor) -> Tensor:
    """A vector or matrix as the kernels take it: four dimensions, dense."""
    columns = tensor.shape[-1]
    return tensor.detach().contiguous().view(1, 1, -1, columns)


def run(
    kernel: Callable[..., None],
    *tensors: Tensor,
    kernel_size: int,
    workspace: tuple[Tensor, int, int] | None = None,
) -> None:
    """Calls a kernel, on the current stream of the tensors' device.

    Args:
      kernel: a function of `cuda_kernels`.
      *tensors: what it reads and writes.
      kernel_size: rows and columns of the footprint.
      workspace: the features, R and G, if it needs a workspace on CUDA.
    """
    device = tensors[0].device
    if device.type == "cpu":
        kernel(*tensors, kernel_size=kernel_size)
        return
    more: dict[str, Any] = {}
    with torch.cuda.device(device):
        if workspace is not None:
            elements = cuda_kernels.pairwise_workspace(
                kernel.__name__, *workspace, kernel_size=kernel_size
            )
            more["workspace"] = torch.empty(
                (1, 1, 1, elements), dtype=torch.float64, device=device
            )
        more["stream"] = torch.cuda.current_stream().cuda_stream
        kernel(*tensors, kernel_size=kernel_size, **more)
