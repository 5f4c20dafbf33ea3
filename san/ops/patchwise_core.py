"""The registered operators under patchwise attention.

Two differentiable operators of which neither leaves anything with both K taps
and P pixels in memory, forward or backward: the hidden layer of the mapping is
a convolution that rectifies its input anew for every tap, and the weights of
the footprint exist for a few pixels at a time. Both compute again what their
derivative needs. How they become an attention block with batch norms is in
`patchwise_attention`, the arithmetic is in cuda_kernels/patchwise/tasks.h.

Shape letters: N batch, R relation channels, G weight channels, C value
channels, H W image, k footprint, K = k * k taps, P = H * W pixels.
"""

from typing import Any

import torch

import cuda_kernels
from san.ops.fused_call import run_fused
from san.ops.registration import define

# Rows and columns: further taps would not fit the kernels' buffers.
LARGEST_FOOTPRINT = cuda_kernels.LARGEST_PATCHWISE_FOOTPRINT


def _dense(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Dense views or copies; an output has to be dense already."""
    return [t.detach().contiguous() for t in tensors]


def _hidden_forward(phi: torch.Tensor, *inputs: Any) -> torch.Tensor:
    *tensors, kernel_size = inputs
    hidden = _fake_hidden_forward(phi, *inputs)
    run_fused(
        cuda_kernels.patchwise_hidden_forward,
        *_dense(phi, *tensors),
        hidden,
        kernel_size=kernel_size,
    )
    return hidden


def _fake_hidden_forward(phi: torch.Tensor, *inputs: Any) -> torch.Tensor:
    batch, _, height, width = phi.shape
    groups = inputs[-2].shape[0]
    return phi.new_empty((batch, groups, height, width))


def _core_forward(
    hidden: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    output = _fake_core_forward(hidden, value, weight, bias)
    run_fused(
        cuda_kernels.patchwise_core_forward,
        *_dense(hidden, value, weight, bias),
        output,
    )
    return output


def _fake_core_forward(
    hidden: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    return value.new_empty(value.shape)


def _fake_backward(
    grad: torch.Tensor, *inputs: Any
) -> tuple[torch.Tensor, ...]:
    tensors = (t for t in inputs if isinstance(t, torch.Tensor))
    return tuple(t.new_empty(t.shape) for t in tensors)


def _hidden_backward(
    grad: torch.Tensor, *inputs: Any
) -> tuple[torch.Tensor, ...]:
    *tensors, kernel_size = inputs
    grads = _fake_backward(grad, *tensors)
    run_fused(
        cuda_kernels.patchwise_hidden_backward,
        *_dense(grad, *tensors),
        *grads,
        workspace=lambda: cuda_kernels.patchwise_hidden_workspace(
            *tensors[0].shape,
            weight_channels=grad.shape[1],
            kernel_size=kernel_size,
        ),
        workspace_dtype=grad.dtype,
        kernel_size=kernel_size,
    )
    return grads


def _core_backward(
    grad: torch.Tensor, *inputs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    grads = _fake_backward(grad, *inputs)
    _, value, weight, _ = inputs
    run_fused(
        cuda_kernels.patchwise_core_backward,
        *_dense(grad, *inputs),
        *grads,
        workspace=lambda: cuda_kernels.patchwise_core_workspace(
            *value.shape,
            weight_channels=weight.shape[0],
            kernel_size=weight.shape[1],
        ),
        workspace_dtype=grad.dtype,
    )
    return grads


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
