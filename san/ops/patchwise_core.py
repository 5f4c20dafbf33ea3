"""The registered operators under patchwise attention.

Two differentiable operators of which neither leaves anything with both K taps
and P pixels in memory, forward or backward: the hidden layer of the mapping is
a convolution that rectifies its input anew for every tap, and the weights of
the footprint exist for a few pixels at a time. Both compute again what their
derivative needs. How they become an attention block with batch norms is in
`patchwise_attention`, the arithmetic is in cuda_kernels/patchwise/tasks.h.

Images are in channels-last, and may be some of the channels of one: others
are copied. The hidden layer and the parameters are float32 where images are
of a half type, which the kernels of the CPU and of tensor cores read and write
themselves. Forward, both may round what they multiply to it.

Shape letters: N batch, R relation channels, G weight channels, C value
channels, H W image, k footprint, K = k * k taps, P = H * W pixels.
"""

from typing import Any

import torch

import cuda_kernels
from san.ops.fused_call import (
    allows_tf32,
    compute_dtype,
    like_image,
    pixels,
    run_fused,
)
from san.ops.registration import define

# Rows and columns: further taps would not fit the kernels' buffers.
LARGEST_FOOTPRINT = cuda_kernels.LARGEST_PATCHWISE_FOOTPRINT


def _tensor_cores(
    kernel: str, image: torch.Tensor, groups: int, kernel_size: int
) -> dict[str, Any] | None:
    """How run_fused has tensor cores run a kernel; None where it may not.

    All types but float64 are theirs wherever their sizes fit. Of float32 they
    read the first 11 bits where PyTorch's own products may do so, and else all.

    Args:
      kernel: its name, without "patchwise_".
      image: psi or value.
      groups: G.
      kernel_size: k.
    """
    if image.device.type == "cpu" or image.dtype == torch.float64:
        return None
    allow_tf32 = allows_tf32()
    count = cuda_kernels.patchwise_tensor_workspace(
        f"patchwise_{kernel}",
        pixels(image),
        weight_channels=groups,
        kernel_size=kernel_size,
        allow_tf32=allow_tf32,
    )
    if count is None:
        return None
    return {
        "tensor_cores": True,
        "allow_tf32": allow_tf32,
        "workspace": lambda: count,
        "workspace_dtype": torch.float32,
    }


def _as_taken(*images: torch.Tensor) -> list[torch.Tensor]:
    """Images in a dtype that kernels without tensor cores read."""
    return [
        image
        if image.device.type == "cpu"
        else image.to(compute_dtype(image.dtype))
        for image in images
    ]


def _dense(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Parameters as the kernels take them."""
    return [t.detach().contiguous() for t in tensors]


def _pixels(*images: torch.Tensor) -> list[torch.Tensor]:
    """Images as the kernels take them."""
    return [pixels(image) for image in images]


def _dense_pixels(image: torch.Tensor) -> torch.Tensor:
    """The hidden layer, or its gradient, as the kernels take it."""
    return pixels(image).contiguous()


def _hidden_forward(
    phi: torch.Tensor, psi: torch.Tensor, *inputs: Any
) -> torch.Tensor:
    *parameters, kernel_size = inputs
    hidden = _fake_hidden_forward(phi, psi, *inputs)
    options = _tensor_cores("hidden_forward", psi, hidden.shape[1], kernel_size)
    if options is None:
        options = {}
        phi, psi = _as_taken(phi, psi)
    run_fused(
        cuda_kernels.patchwise_hidden_forward,
        *_pixels(phi, psi),
        *_dense(*parameters),
        *_pixels(hidden),
        kernel_size=kernel_size,
        **options,
    )
    return hidden


def _fake_hidden_forward(phi: torch.Tensor, *inputs: Any) -> torch.Tensor:
    batch, _, height, width = phi.shape
    weight = inputs[-2]
    hidden = weight.new_empty((batch, height, width, weight.shape[0]))
    return hidden.permute(0, 3, 1, 2)


def _core_forward(
    hidden: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    dtype = value.dtype
    options = _tensor_cores("core_forward", value, *weight.shape[:2])
    if options is None:
        options = {}
        [value] = _as_taken(value)
    output = like_image(value)
    run_fused(
        cuda_kernels.patchwise_core_forward,
        _dense_pixels(hidden),
        *_pixels(value),
        *_dense(weight, bias),
        *_pixels(output),
        **options,
    )
    return output.to(dtype)


def _fake_core_forward(
    hidden: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    return like_image(value)


def _fake_backward(
    grad: torch.Tensor, first: torch.Tensor, second: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    """Gradients of two images and of the parameters."""
    parameters = (t for t in rest if isinstance(t, torch.Tensor))
    return (
        like_image(first),
        like_image(second),
        *(t.new_empty(t.shape) for t in parameters),
    )


def _hidden_backward(
    grad: torch.Tensor, phi: torch.Tensor, psi: torch.Tensor, *inputs: Any
) -> tuple[torch.Tensor, ...]:
    *parameters, kernel_size = inputs
    dtype = psi.dtype
    options = _tensor_cores("hidden_backward", psi, grad.shape[1], kernel_size)
    if options is None:
        phi, psi = _as_taken(phi, psi)
        options = {
            "workspace": lambda: cuda_kernels.patchwise_hidden_workspace(
                *phi.shape,
                weight_channels=grad.shape[1],
                kernel_size=kernel_size,
            ),
            "workspace_dtype": grad.dtype,
        }
    grads = _fake_backward(grad, phi, psi, *parameters)
    run_fused(
        cuda_kernels.patchwise_hidden_backward,
        _dense_pixels(grad),
        *_pixels(phi, psi),
        *_dense(*parameters),
        *_pixels(*grads[:2]),
        *grads[2:],
        kernel_size=kernel_size,
        **options,
    )
    return (*(image.to(dtype) for image in grads[:2]), *grads[2:])


def _core_backward(
    grad: torch.Tensor,
    hidden: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    dtype = value.dtype
    options = _tensor_cores("core_backward", value, *weight.shape[:2])
    if options is None:
        grad, value = _as_taken(grad, value)
        options = {
            "workspace": lambda: cuda_kernels.patchwise_core_workspace(
                *value.shape,
                weight_channels=weight.shape[0],
                kernel_size=weight.shape[1],
            ),
            "workspace_dtype": hidden.dtype,
        }
    grads = _fake_backward(grad, hidden, value, weight, bias)
    run_fused(
        cuda_kernels.patchwise_core_backward,
        *_pixels(grad),
        _dense_pixels(hidden),
        *_pixels(value),
        *_dense(weight, bias),
        *_pixels(*grads[:2]),
        *grads[2:],
        **options,
    )
    return (grads[0], grads[1].to(dtype), *grads[2:])


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _save_hidden_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.kernel_size = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_hidden(ctx: Any, grad: torch.Tensor) -> Any:
    grads = torch.ops.san.patchwise_hidden_backward(
        grad, *ctx.saved_tensors, ctx.kernel_size
    )
    return *grads, None


def _differentiate_core(ctx: Any, grad: torch.Tensor) -> Any:
    return torch.ops.san.patchwise_core_backward(grad, *ctx.saved_tensors)


define(
    "patchwise_hidden(Tensor phi, Tensor psi, Tensor scale, Tensor shift, "
    "Tensor weight, int kernel_size) -> Tensor",
    _hidden_forward,
    fake=_fake_hidden_forward,
    backward=_differentiate_hidden,
    setup_context=_save_hidden_inputs,
)
define(
    "patchwise_hidden_backward(Tensor grad_hidden, Tensor phi, Tensor psi, "
    "Tensor scale, Tensor shift, Tensor weight, int kernel_size) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _hidden_backward,
    fake=_fake_backward,
)
define(
    "patchwise_core(Tensor hidden, Tensor value, Tensor weight, Tensor bias) "
    "-> Tensor",
    _core_forward,
    fake=_fake_core_forward,
    backward=_differentiate_core,
    setup_context=_save_inputs,
)
define(
    "patchwise_core_backward(Tensor grad_output, Tensor hidden, Tensor value, "
    "Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor, Tensor)",
    _core_backward,
    fake=_fake_backward,
)
