"""The registered operators under norm_relu.

What they compute is in `norm_relu`, the loops are in
cuda_kernels/norm_relu/tasks.h. Each saves its input alone; of weights it
saves the parameters themselves, which it casts and joins anew when it needs
them.

Shape letters: N batch, C channels, O output channels, H W image.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import cuda_kernels
from san.norms import sum_over_group
from san.ops.fused_call import (
    compute_dtype,
    dense_image,
    like_image,
    run_fused,
)
from san.ops.pointwise import (
    panels_of,
    run_gradient,
    run_pointwise,
    takes_weight,
)
from san.ops.registration import define


class Norm(NamedTuple):
    """A batch norm as the operators take it.

    Attributes:
      gamma: [C], beta: [C]: its weight and bias.
      mean: [C], variance: [C]: what it normalises by.
      share: of one pixel in the statistics; 0 if they are not the batch's.
      eps: is added to the variance.
      group: the name of the processes that the statistics are of; "" if they
        are this process's alone.
    """

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor
    share: Tensor
    eps: float
    group: str

    def affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and inverse deviation, in float64."""
        inverse = torch.rsqrt(self.variance.double() + self.eps)
        scale = self.gamma.double() * inverse
        return scale, self.beta.double() - self.mean.double() * scale, inverse


_NORM_SCHEMA = (
    "Tensor gamma, Tensor beta, Tensor mean, Tensor variance, Tensor share, "
    "float eps, str group"
)
# Their share in the derivative by x is in that by x already.
_CONSTANTS = ("mean", "variance", "share")


def _vector(v: Tensor, x: Tensor) -> Tensor:
    """[C] as the kernels take it beside x."""
    return v.detach().to(compute_dtype(x.dtype)).contiguous().view(1, 1, 1, -1)


def _windows(image: Tensor, pool: int) -> Tensor:
    """An empty [N, H / pool, W / pool, C]."""
    batch, height, width, channels = image.shape
    return image.new_empty((batch, height // pool, width // pool, channels))


def _workspace(image: Tensor) -> Callable[[], int]:
    """What two sums per channel need."""
    return lambda: cuda_kernels.norm_relu_workspace(2, image.shape[3])


def _run_forward(image: Tensor, norm: Norm, pool: int) -> Tensor:
    scale, shift, _ = norm.affine()
    return _run_affine(image, scale, shift, pool)


def _run_affine(
    image: Tensor, scale: Tensor, shift: Tensor, pool: int
) -> Tensor:
    output = _windows(image, pool)
    run_fused(
        cuda_kernels.norm_relu_forward,
        image,
        _vector(scale, image),
        _vector(shift, image),
        output,
        pool=pool,
    )
    return output


def _run_sums(
    grad: Tensor, image: Tensor, norm: Norm, pool: int, output: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of gamma / inverse deviation and of beta; fills output."""
    scale, shift, _ = norm.affine()
    sums = scale.new_empty((2, 1, 1, 1, scale.shape[0]))
    run_fused(
        cuda_kernels.norm_relu_sums,
        grad,
        image,
        _vector(scale, image),
        _vector(shift, image),
        _vector(norm.mean, image),
        sums[0],
        sums[1],
        output,
        workspace=_workspace(image),
        pool=pool,
    )
    return sums[1].flatten(), sums[0].flatten()


def _run_backward(
    grad: Tensor,
    image: Tensor,
    norm: Norm,
    pool: int,
    grad_x: Tensor,
    output: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [N, C, H, W], gamma and beta; fills output.

    That of x lies in grad_x, which may be grad if there is no pooling.
    """
    scale, shift, inverse = norm.affine()
    moment, total = _run_sums(grad, image, norm, pool, output)
    grad_gamma, grad_beta = moment * inverse, total
    if norm.group:
        sums = torch.stack([moment, total])
        sum_over_group(sums, norm.group)
        moment, total = sums
    # Where the statistics are not the batch's: 0 * NaN would reach all images.
    moment, total = (
        torch.where(norm.share > 0, t, torch.zeros_like(t))
        for t in (moment, total)
    )
    slope = -norm.share * scale * inverse**2 * moment
    constant = -norm.share * scale * total - slope * norm.mean
    run_fused(
        cuda_kernels.norm_relu_backward,
        grad,
        image,
        _vector(scale, image),
        _vector(shift, image),
        _vector(constant, image),
        _vector(slope, image),
        grad_x,
        pool=pool,
    )
    return (
        grad_x.permute(0, 3, 1, 2),
        grad_gamma.to(norm.gamma.dtype),
        grad_beta.to(norm.beta.dtype),
    )


def _channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = _fake_channel_moments(x)
    shape = 1, 1, 1, -1
    image = dense_image(x)
    run_fused(
        cuda_kernels.channel_moments,
        image,
        mean.view(shape),
        variance.view(shape),
        workspace=_workspace(image),
    )
    return mean, variance


def _fake_channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=torch.float64)
    return mean, torch.empty_like(mean)


def _norm_relu(x: Tensor, *norm_and_pool: Any) -> Tensor:
    *norm, pool = norm_and_pool
    return _run_forward(dense_image(x), Norm(*norm), pool).permute(0, 3, 1, 2)


def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor, pool: int) -> Tensor:
    return _run_affine(dense_image(x), scale, shift, pool).permute(0, 3, 1, 2)


def _fake_norm_relu(x: Tensor, *norm_and_pool: Any) -> Tensor:
    image = x.permute(0, 2, 3, 1)
    return _windows(image, norm_and_pool[-1]).permute(0, 3, 1, 2)


def _norm_relu_backward(
    grad: Tensor, x: Tensor, *norm_and_pool: Any
) -> tuple[Tensor, ...]:
    *norm, pool = norm_and_pool
    image = dense_image(x)
    return _run_backward(
        dense_image(grad), image, Norm(*norm), pool, torch.empty_like(image)
    )


def _fake_norm_relu_backward(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return like_image(x), torch.empty_like(gamma), torch.empty_like(beta)


def _joined(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """One after the other; of one tensor no copy."""
    first, *others = (t.to(dtype) for t in tensors)
    return torch.cat([first, *others]) if others else first


def _matrix(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All rows [O, C]."""
    return _joined([weight.flatten(1) for weight in weights], dtype)


def _linear(x: Tensor, *inputs: Any) -> Tensor:
    *norm, pool, weights, biases, dtype, residual = inputs
    weight, bias = _matrix(weights, dtype), _joined(biases, dtype)
    image = dense_image(x)
    if x.dtype == dtype and takes_weight(weight, dtype):
        y = _own_linear(image, Norm(*norm), pool, weight, bias, residual)
        return y.permute(0, 3, 1, 2)
    active = _run_forward(image, Norm(*norm), pool)
    shape = (*active.shape[:3], len(weight))
    active = active.flatten(0, 2).to(dtype)
    if residual is None:
        rows = torch.addmm(bias, active, weight.T)
    elif residual.dtype == dtype:
        rows = (dense_image(residual).flatten(0, 2) + bias).addmm_(
            active, weight.T
        )
    else:
        rows = dense_image(residual).flatten(0, 2) + torch.addmm(
            bias, active, weight.T
        )
    return rows.view(shape).permute(0, 3, 1, 2)


def _own_linear(
    image: Tensor,
    norm: Norm,
    pool: int,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
) -> Tensor:
    """By the kernel of pointwise: without a pass for what is not pooled."""
    affine: tuple[Tensor, Tensor] | None = norm.affine()[:2]
    if pool > 1:
        image, affine = _run_forward(image, norm, pool), None
    addend = None
    if residual is not None and residual.dtype == weight.dtype:
        addend = dense_image(residual)
    y = run_pointwise(
        *(image, panels_of(weight), len(weight)),
        affine=affine,
        bias=bias,
        addend=addend,
    )
    if residual is None or addend is not None:
        return y
    return dense_image(residual) + y


def _fake_linear(x: Tensor, *inputs: Any) -> Tensor:
    *_, pool, weights, _, dtype, residual = inputs
    batch, _, height, width = x.shape
    if residual is not None:
        dtype = torch.promote_types(dtype, residual.dtype)
    outputs = sum(len(weight) for weight in weights)
    shape = (batch, height // pool, width // pool, outputs)
    return x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2)


def _linear_backward(
    grad: Tensor, x: Tensor, *norm_and_weight: Any
) -> tuple[Tensor, ...]:
    *inputs, weight, parameter_dtype = norm_and_weight
    own = grad.dtype == x.dtype == weight.dtype and takes_weight(
        weight, weight.dtype
    )
    compute = _own_linear_backward if own else _plain_linear_backward
    *grads, of_weight, of_bias = compute(
        dense_image(grad), dense_image(x), inputs, weight
    )
    return *grads, of_weight.to(parameter_dtype), of_bias.to(parameter_dtype)


def _plain_linear_backward(
    grad: Tensor, image: Tensor, inputs: Sequence[Any], weight: Tensor
) -> tuple[Tensor, ...]:
    """By products of PyTorch."""
    *norm, pool = inputs
    dtype = weight.dtype
    rows = grad.flatten(0, 2).to(dtype)
    active = _windows(image, pool)
    grad_active = (rows @ weight).to(image.dtype).view(active.shape)
    grad_x = grad_active if pool == 1 else torch.empty_like(image)
    grads = _run_backward(grad_active, image, Norm(*norm), pool, grad_x, active)
    active = active.flatten(0, 2).to(dtype)
    return *grads, rows.T @ active, rows.sum(0)


def _own_linear_backward(
    grad: Tensor, image: Tensor, inputs: Sequence[Any], weight: Tensor
) -> tuple[Tensor, ...]:
    """By the kernels of pointwise: without a pass for what is not pooled."""
    *parts, pool = inputs
    norm = Norm(*parts)
    if weight.dtype == torch.bfloat16:  # PyTorch's plain product is as fast.
        grad_active = grad @ weight
    else:
        panels = panels_of(weight, transposed=True)
        grad_active = run_pointwise(grad, panels, weight.shape[1])
    if pool == 1:
        of_linear = run_gradient(grad, image, norm.affine()[:2])
        grads = _run_backward(grad_active, image, norm, pool, grad_active)
    else:
        active = torch.empty_like(grad_active)
        grad_x = torch.empty_like(image)
        grads = _run_backward(grad_active, image, norm, pool, grad_x, active)
        of_linear = run_gradient(grad, active)
    return *grads, *of_linear


def _fake_linear_backward(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    weight, dtype = rest[-2:]
    return (
        *_fake_norm_relu_backward(grad, x, gamma, beta),
        weight.new_empty(weight.shape, dtype=dtype),
        weight.new_empty(len(weight), dtype=dtype),
    )


# ---- Their derivatives.


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, *norm, ctx.pool = inputs
    _save_norm(ctx, x, norm)


def _save_norm(ctx: Any, x: Tensor, norm: Any, *others: Tensor) -> None:
    *tensors, ctx.eps, ctx.group = norm
    ctx.save_for_backward(x, *tensors, *others)


def _differentiate(ctx: Any, grad: Tensor) -> Any:
    grads = torch.ops.san.norm_relu_backward(
        grad, *ctx.saved_tensors, ctx.eps, ctx.group, ctx.pool
    )
    return *grads, *[None] * 6


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, *norm, ctx.pool, weights, _, ctx.dtype, residual = inputs
    ctx.residual = None if residual is None else residual.dtype
    _save_norm(ctx, x, norm, *weights)


def _differentiate_linear(ctx: Any, grad: Tensor) -> Any:
    x, gamma, beta, mean, variance, share, *weights = ctx.saved_tensors
    norm = Norm(gamma, beta, mean, variance, share, ctx.eps, ctx.group)
    *grads, of_weights, of_biases = torch.ops.san.norm_relu_linear_backward(
        grad,
        x,
        *norm,
        ctx.pool,
        _matrix(weights, ctx.dtype),
        weights[0].dtype,
    )
    sizes = [len(weight) for weight in weights]
    of_weights = [
        part.view(weight.shape).to(weight.dtype)
        for part, weight in zip(of_weights.split(sizes), weights, strict=True)
    ]
    of_biases = list(of_biases.split(sizes))
    residual = None if ctx.residual is None else grad.to(ctx.residual)
    return *grads, *[None] * 6, of_weights, of_biases, None, residual


define(
    "channel_moments(Tensor x) -> (Tensor, Tensor)",
    _channel_moments,
    fake=_fake_channel_moments,
)
# For inference: without a derivative.
define(
    "affine_relu(Tensor x, Tensor scale, Tensor shift, int pool) -> Tensor",
    _affine_relu,
    fake=_fake_norm_relu,
    remedy="differentiate the network before san.fold_for_inference",
)
define(
    f"norm_relu(Tensor x, {_NORM_SCHEMA}, int pool) -> Tensor",
    _norm_relu,
    fake=_fake_norm_relu,
    backward=_differentiate,
    setup_context=_save,
    constants=_CONSTANTS,
)
define(
    f"norm_relu_backward(Tensor grad, Tensor x, {_NORM_SCHEMA}, int pool) "
    "-> (Tensor, Tensor, Tensor)",
    _norm_relu_backward,
    fake=_fake_norm_relu_backward,
)
define(
    f"norm_relu_linear(Tensor x, {_NORM_SCHEMA}, int pool, "
    "Tensor[] weights, Tensor[] biases, ScalarType dtype, Tensor? residual) "
    "-> Tensor",
    _linear,
    fake=_fake_linear,
    backward=_differentiate_linear,
    setup_context=_save_linear,
    constants=_CONSTANTS,
)
define(
    f"norm_relu_linear_backward(Tensor grad, Tensor x, {_NORM_SCHEMA}, "
    "int pool, Tensor weight, ScalarType dtype) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _linear_backward,
    fake=_fake_linear_backward,
)
