"""What the registered operators of san compute.

Importing this lets torch.utils.flop_counter.FlopCounterMode count them. It
counts matrix products and convolutions only, 2 FLOPs per multiply-add, and a
backward pass as its products without what is computed again.

The fused operators compute what the layers one by one compute, but for one
thing: the two channels of positions of a pairwise block. The layers one by
one carry them through conv_p and the first matrix of the mapping at every
tap, 2 R multiply-adds each; the fused operators add a table of K rows instead,
made by K * (4 + 2 R) multiply-adds of ordinary PyTorch.

Shape letters: N batch, I input channels, C channels, O output channels,
R relation channels, G weight channels, M value channels, K taps, H W image,
P output pixels.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

from san.ops.window import Window

Shape = Sequence[int]


def _aggregation(input: Shape, weight: Shape, *_: Any) -> int:
    return prod(input[:2]) * prod(weight[2:])  # N C K P.


def _aggregation_backward(
    grad: Shape, input: Shape, weight: Shape, *window_and_needs: Any
) -> int:
    needs_input, needs_weight = window_and_needs[-2:]
    return (needs_input + needs_weight) * _aggregation(input, weight)


def _correlation(a: Shape, b: Shape, num_groups: int, *window: Any) -> int:
    return prod(a) * Window(*window).num_taps


def _stem(x: Shape, weight: Shape, shift: Shape) -> int:
    return _pixels(x) * prod(weight)


def _stem_backward(
    grad: Shape, x: Shape, weight: Shape, shift: Shape, needs_x: bool
) -> int:
    return (1 + needs_x) * _stem(x, weight, shift)


def _windows(x: Shape, pool: int) -> int:
    batch, _, height, width = x
    return batch * (height // pool) * (width // pool)


def _norm_relu_linear(x: Shape, *norm_and_weights: Any) -> int:
    *_, pool, weights, _, _, _ = norm_and_weights
    return _windows(x, pool) * sum(map(prod, weights))


def _norm_relu_linear_backward(grad: Shape, x: Shape, *rest: Any) -> int:
    weight = rest[-2]
    return 2 * _pixels(grad) * prod(weight)


def _pointwise(x: Shape, *rest: Any) -> int:
    return prod(x) * rest[-1]


def _pointwise_add(y: Shape, x: Shape, *_: Any) -> int:
    return prod(x) * y[1]


def _pairwise_core(
    features: Shape,
    scale: Shape,
    shift: Shape,
    table: Shape,
    w1: Shape,
    w2: Shape,
    kernel_size: int,
) -> int:
    value_channels = features[1] - 2 * scale[0]
    taps = _pixels(features) * kernel_size**2
    return taps * (prod(w1) + prod(w2) + value_channels)


def _pairwise_core_backward(
    grad: Shape, output: Shape, log_sum_exp: Shape, *inputs: Any
) -> int:
    return 2 * _pairwise_core(*inputs)


def _patchwise_hidden(
    phi: Shape, psi: Shape, scale: Shape, shift: Shape, weight: Shape, *_: Any
) -> int:
    return _pixels(phi) * prod(weight)


def _patchwise_hidden_backward(grad: Shape, *inputs: Any) -> int:
    return 2 * _patchwise_hidden(*inputs)


def _patchwise_core(
    hidden: Shape, value: Shape, weight: Shape, bias: Shape
) -> int:
    num_taps = prod(weight[1:3])
    return _pixels(value) * (prod(weight) + num_taps * value[1])


def _patchwise_core_backward(grad: Shape, *inputs: Shape) -> int:
    return 2 * _patchwise_core(*inputs)


def _pixels(image: Shape) -> int:
    """N H W of an image [N, C, H, W]."""
    batch, _, height, width = image
    return batch * height * width


# Multiply-adds of an operator's products, from its arguments, of tensors
# their shapes.
_PRODUCTS: dict[str, Callable[..., int]] = {
    "aggregation": _aggregation,
    "aggregation_backward": _aggregation_backward,
    "correlation": _correlation,
    "norm_relu_linear": _norm_relu_linear,
    "norm_relu_linear_backward": _norm_relu_linear_backward,
    "pairwise_core": _pairwise_core,
    "pairwise_core_backward": _pairwise_core_backward,
    "pairwise_core_recorded": _pairwise_core,
    "patchwise_core": _patchwise_core,
    "patchwise_core_backward": _patchwise_core_backward,
    "patchwise_hidden": _patchwise_hidden,
    "patchwise_hidden_backward": _patchwise_hidden_backward,
    "pointwise": _pointwise,
    "pointwise_add_": _pointwise_add,
    "stem": _stem,
    "stem_backward": _stem_backward,
}


def _flops(products: Callable[..., int]) -> Callable[..., int]:
    def formula(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return 2 * products(*args, **kwargs)

    return formula


def _addmm(sum: Shape, a: Shape, b: Shape, **_: Any) -> int:
    return prod(a) * b[-1]


# Which folded networks use, and which PyTorch counts from some version on.
if torch.ops.aten.addmm_ not in flop_registry:
    register_flop_formula(torch.ops.aten.addmm_)(_flops(_addmm))

for _name, _products in _PRODUCTS.items():
    register_flop_formula(getattr(torch.ops.san, _name))(_flops(_products))


# ---- MACs by the rules of count_cost: those products, and beside them 2 per
# element of a norm that is still there, 1 per element of a bias, a ReLU and
# what is pooled.


def _norm_relu_macs(x: Shape, *norm_and_pool: Any) -> int:
    pools = norm_and_pool[-1] > 1
    return (3 + pools) * prod(x)


def _norm_relu_linear_macs(x: Shape, *rest: Any) -> int:
    *_, pool, _, biases, _, _ = rest
    return (
        _norm_relu_macs(x, pool)
        + _norm_relu_linear(x, *rest)
        + _windows(x, pool) * sum(map(prod, biases))
    )


def _pointwise_macs(x: Shape, scale: Shape | None, *rest: Any) -> int:
    # A bias costs nothing, as that of a linear layer.
    return _pointwise(x, *rest) + (scale is not None) * 3 * prod(x)


def _pointwise_add_macs(
    y: Shape, x: Shape, shift: Shape | None, *_: Any
) -> int:
    return _pointwise_add(y, x) + (1 + (shift is not None)) * prod(x)


def _stem_macs(x: Shape, weight: Shape, shift: Shape) -> int:
    convolved = _pixels(x) * prod(shift)
    return _stem(x, weight, shift) + 3 * convolved


def _pairwise_core_macs(features: Shape, scale: Shape, *rest: Any) -> int:
    taps = _pixels(features) * rest[-1] ** 2
    # The difference, its norm and ReLU, the table as a bias, the second ReLU.
    return _pairwise_core(features, scale, *rest) + taps * 6 * scale[0]


def _pairwise_moments_macs(features: Shape, scale: Shape, *rest: Any) -> int:
    taps = _pixels(features) * rest[-1] ** 2
    # The difference, its norm and ReLU, and their products.
    return taps * (4 * scale[0] + scale[0] ** 2)


def _difference_moments_macs(
    features: Shape, relation_channels: int, kernel_size: int
) -> int:
    return _pixels(features) * kernel_size**2 * 2 * relation_channels


def _patchwise_hidden_macs(phi: Shape, *inputs: Any) -> int:
    relation = prod(inputs[1])  # The length of scale: R * (K + 1).
    return _patchwise_hidden(phi, *inputs) + 3 * relation * _pixels(phi)


def _patchwise_core_macs(
    hidden: Shape, value: Shape, weight: Shape, bias: Shape
) -> int:
    biases = _pixels(value) * prod(bias)
    return _patchwise_core(hidden, value, weight, bias) + biases


def _subtraction2_macs(a: Shape, b: Shape, *window: Any) -> int:
    taken = Window(*window)
    height, width = map(taken.output_size, a[2:])
    return prod(a[:2]) * taken.num_taps * height * width


def _correlation_macs(a: Shape, b: Shape, num_groups: int, *rest: Any) -> int:
    # Channel by channel it is elementwise, as subtraction2 is.
    is_elementwise = num_groups == a[1]
    return _correlation(a, b, num_groups, *rest) if is_elementwise else 0


def _uncounted_products(a: Shape, *rest: Any) -> int:
    return _correlation(a, *rest) - _correlation_macs(a, *rest)


# As _PRODUCTS. The moments of a batch are part of its norm.
MACS: dict[str, Callable[..., int]] = {
    "affine_relu": _norm_relu_macs,
    "aggregation": _aggregation,
    "channel_moments": lambda x: 0,
    "correlation": _correlation_macs,
    "norm_relu": _norm_relu_macs,
    "norm_relu_linear": _norm_relu_linear_macs,
    "pairwise_core": _pairwise_core_macs,
    "pairwise_core_recorded": _pairwise_core_macs,
    "pairwise_difference_moments": _difference_moments_macs,
    "pairwise_moments": _pairwise_moments_macs,
    "patchwise_core": _patchwise_core_macs,
    "patchwise_hidden": _patchwise_hidden_macs,
    "pointwise": _pointwise_macs,
    "pointwise_add_": _pointwise_add_macs,
    "stem": _stem_macs,
    "subtraction2": _subtraction2_macs,
}

# What the published count leaves out: the dot products of relations.
UNCOUNTED: dict[str, Callable[..., int]] = {"correlation": _uncounted_products}
