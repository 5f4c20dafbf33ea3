"""The MACs of PyTorch's operators, and which of them cost nothing.

An operator in neither table has unknown cost. Names are those of the
operators that arrive where no gradient is taken and tensors have no values,
without the "_" of those that write over their input.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from san.attention.window_ops import beside_taps, taps
from san.counting.own import MACS as MACS_OF_OWN
from san.counting.own import UNCOUNTED


def macs_of(func: Any, result: Any, args: Sequence[Any]) -> int:
    """The MACs of a call of an operator, 0 if it has no rule.

    Args:
      func: the operator's overload.
      result: what it returned.
      args: its positional arguments.
    """
    namespace, name = _name(func)
    if namespace == "san" and name in MACS_OF_OWN:
        return MACS_OF_OWN[name](*tree_map(_shape, args))
    if namespace == "aten" and name in _MACS:
        return _MACS[name](result, *args)
    return 0


def uncounted_macs_of(func: Any, args: Sequence[Any]) -> int:
    """The MACs of an operator that the published count leaves out."""
    namespace, name = _name(func)
    if namespace != "san" or name not in UNCOUNTED:
        return 0
    return UNCOUNTED[name](*tree_map(_shape, args))


@functools.cache
def has_rule(func: Any) -> bool:
    """Whether an operator costs what macs_of says."""
    namespace, name = _name(func)
    if namespace != "aten":
        is_own = namespace == "san" and name in MACS_OF_OWN
        return is_own or namespace in _FREE_NAMESPACES
    if name in _MACS or name in _FREE:
        return True
    # That which writes over its input lacks some marks of that which does not.
    packet = getattr(torch.ops.aten, name, func.overloadpacket)
    return any(
        overload.is_view or not _FREE_TAGS.isdisjoint(overload.tags)
        for overload in (
            func,
            *(getattr(packet, each) for each in packet.overloads()),
        )
    )


def _name(func: Any) -> tuple[str, str]:
    """Namespace and name."""
    namespace, name = str(func.overloadpacket).split(".", 1)
    return namespace, name if name.startswith("__") else name.rstrip("_")


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else value


def _convolution(
    output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    is_transposed: bool,
    *_: Any,
) -> int:
    # Each weight meets each position of the smaller image once.
    positions = _positions(input if is_transposed else output)
    num_biases = 0 if bias is None else bias.numel()
    return positions * weight.numel() + _positions(output) * num_biases


def _positions(image: torch.Tensor) -> int:
    """N H W of [N, C, H, W], and so on."""
    return image[:, :1].numel() if image.shape[1] else 0


def _product(output: torch.Tensor, a: torch.Tensor, *_: Any) -> int:
    return output.numel() * a.shape[-1]


def _sum_and_product(
    output: torch.Tensor, sum: torch.Tensor, a: torch.Tensor, *_: Any
) -> int:
    return output.numel() * a.shape[-1]


def _sum_of_products(
    output: torch.Tensor, sum: torch.Tensor, a: torch.Tensor, *_: Any
) -> int:
    return output.numel() * a.shape[0] * a.shape[-1]


def _attention(
    output: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
) -> int:
    pairs = query[..., 0].numel() * key.shape[-2]
    return pairs * (query.shape[-1] + value.shape[-1])


def _per_input(output: Any, input: torch.Tensor, *_: Any) -> int:
    return input.numel()


def _norm(output: Any, input: torch.Tensor, *_: Any) -> int:
    return 2 * input.numel()


def _per_output(output: torch.Tensor, *_: Any) -> int:
    return output.numel()


def _affine_grid(output: torch.Tensor, theta: torch.Tensor, *_: Any) -> int:
    return output.numel() * theta.shape[-1]


def _interpolation(num_pixels: int) -> Callable[..., int]:
    return lambda output, *_: num_pixels * output.numel()


def _grid_sampler(
    output: torch.Tensor, input: torch.Tensor, grid: Any, mode: int, *_: Any
) -> int:
    """Bilinear, nearest or bicubic."""
    num_pixels = [2, 0, 4][mode] ** (input.dim() - 2)
    return num_pixels * output.numel()


def _rows(rule: Callable[..., int], names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


# MACs of an operator from its result and its positional arguments.
_MACS: dict[str, Callable[..., int]] = {
    "convolution": _convolution,
    **_rows(_product, "mm bmm mv dot vdot _cdist_forward"),
    **_rows(_sum_and_product, "addmm baddbmm addmv"),
    "addbmm": _sum_of_products,
    "addr": _per_output,
    "affine_grid_generator": _affine_grid,
    **_rows(
        _attention,
        "_scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
    ),
    **_rows(
        _norm,
        "native_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_no_update "
        "_batch_norm_with_update native_layer_norm native_group_norm "
        "_fused_rms_norm",
    ),
    **_rows(_per_input, "var var_mean std std_mean linalg_vector_norm norm"),
    **_rows(
        _per_input,
        "relu hardtanh leaky_relu elu celu gelu silu mish sigmoid tanh "
        "hardsigmoid hardswish softplus log_sigmoid_forward _prelu_kernel "
        "rrelu_with_noise threshold hardshrink softshrink",
    ),
    "glu": _per_output,
    # The mean is global average pooling.
    **_rows(
        _per_input,
        "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d "
        "avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
        "adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d "
        "fractional_max_pool3d mean",
    ),
    "upsample_linear1d": _interpolation(2),
    "upsample_bilinear2d": _interpolation(4),
    "upsample_trilinear3d": _interpolation(8),
    "upsample_bicubic2d": _interpolation(16),
    **_rows(_grid_sampler, "grid_sampler_2d grid_sampler_3d"),
}

# MACs, from its result, of a function that is made of simpler operators.
FUNCTIONS: dict[Callable[..., Any], Callable[..., int]] = {
    # Copies, whatever copies them.
    beside_taps: lambda output: 0,
    taps: lambda output: 0,
    F.rms_norm: lambda output: 2 * output.numel(),
    torch.rms_norm: lambda output: 2 * output.numel(),
    F.softsign: _per_output,
}

# Elementwise arithmetic and changes of shape.
_FREE_TAGS = {torch.Tag.pointwise, torch.Tag.view_copy, torch.Tag.inplace_view}

# Marks of the profiler, properties of tensors.
_FREE_NAMESPACES = {"profiler", "prim"}

_FREE = set(
    # Tensors made of nothing.
    "arange bernoulli cauchy empty empty_like empty_permuted empty_strided "
    "exponential eye full full_like geometric lift linspace log_normal "
    "logspace multinomial new_empty new_empty_strided new_full new_ones "
    "new_zeros normal normal_functional ones ones_like rand rand_like randint "
    "randint_like randn randn_like randperm scalar_tensor tril_indices "
    "triu_indices uniform zeros zeros_like "
    # Copies and changes of shape.
    "_reshape_alias _reshape_copy _to_copy _unsafe_view "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d as_strided_scatter block_diag cat "
    "channel_shuffle clone complex constant_pad_nd copy diag_embed "
    "diagonal_scatter fill flip im2col max_unpool2d max_unpool3d "
    "pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d "
    "reflection_pad3d repeat replication_pad1d replication_pad2d "
    "replication_pad3d resize roll rot90 select_scatter set slice_scatter "
    "stack tril triu unsafe_split unsafe_split_with_sizes upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d zero "
    # Lookups and choices.
    "_unique2 _unsafe_index _unsafe_masked_index argmax argmin argsort "
    "bucketize embedding gather index index_copy index_fill index_put "
    "index_select isin kthvalue masked_fill masked_scatter masked_select "
    "median mode nanmedian nonzero one_hot scatter searchsorted sort take "
    "topk unique_consecutive unique_dim "
    # Sums, extremes, products and what is made of them.
    "_log_softmax _safe_softmax _softmax all amax amin aminmax any col2im "
    "count_nonzero cummax cummin cumprod cumsum index_add logcumsumexp "
    "logsumexp max min nansum prod scatter_add scatter_reduce sum trace "
    # Elementwise, without the tag.
    "_local_scalar_dense copysign floor_divide native_dropout rsub xlogy "
    # Assertions.
    "_assert_async _assert_scalar _assert_tensor_metadata "
    "_functional_assert_async _has_same_storage_numel _linalg_check_errors "
    "is_same_size".split()
)
