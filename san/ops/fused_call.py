"""How the fused operators call their kernels.

Tensors as the kernels take them, the stream, and the memory that kernels on
CUDA need beside their results.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What tensors of this dtype are computed in: half types in float32."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def allows_tf32() -> bool:
    """Whether torch lets products in float32 on CUDA round factors to TF32."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """A region without autocast, where it is on for tensors like this one.

    Elsewhere nothing: torch.export cannot save such a region.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def dense_image(image: Tensor) -> Tensor:
    """[N, C, H, W] as a dense [N, H, W, C]; a copy unless in channels-last."""
    return image.detach().permute(0, 2, 3, 1).contiguous()


def pixels(image: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C] whose pixels are one distance apart.

    What is in channels-last, and some of its channels, are as they are; of
    others a dense copy.
    """
    image = image.detach().permute(0, 2, 3, 1)
    sizes, strides = image.shape, image.stride()
    apart = [strides[i] for i in range(3) if sizes[i] != 1]
    pitch = apart[-1] if apart else sizes[3]
    expected = (pitch * sizes[1] * sizes[2], pitch * sizes[2], pitch, 1)
    fits = all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(sizes, strides, expected, strict=True)
    )
    return image if fits and pitch >= sizes[3] else image.contiguous()


def like_image(image: Tensor) -> Tensor:
    """Like [N, C, H, W], in channels-last; without values."""
    batch, channels, height, width = image.shape
    like = image.new_empty((batch, height, width, channels))
    return like.permute(0, 3, 1, 2)


def matrix(tensor: Tensor) -> Tensor:
    """A vector or matrix as the kernels take it: four dimensions, dense."""
    columns = tensor.shape[-1]
    return tensor.detach().contiguous().view(1, 1, -1, columns)


def run_fused(
    kernel: Callable[..., None],
    *tensors: Tensor | None,
    workspace: Callable[[], int] | None = None,
    workspace_dtype: torch.dtype = torch.float64,
    **options: int | bool | Tensor | None,
) -> None:
    """Calls a kernel, on CUDA on the current stream of the tensors' device.

    Args:
      kernel: a function of cuda_kernels.
      *tensors: what it reads and writes, dense.
      workspace: how many elements of memory it needs on CUDA, if any.
      workspace_dtype: their dtype.
      **options: its other arguments.
    """
    device = next(t.device for t in tensors if t is not None)
    if device.type == "cpu":
        kernel(*tensors, **options)
        return
    memory = {}
    with torch.cuda.device(device):
        if workspace is not None:
            memory["workspace"] = torch.empty(
                (1, 1, 1, workspace()), dtype=workspace_dtype, device=device
            )
        stream = torch.cuda.current_stream().cuda_stream
        kernel(*tensors, **options, **memory, stream=stream)
