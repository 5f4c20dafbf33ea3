"""Types of the compiled module; the documentation is in the module itself."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy
from numpy.typing import NDArray

class Tensor(Protocol):
    """Anything that exports DLPack, such as numpy.ndarray or torch.Tensor."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...

LARGEST_PATCHWISE_FOOTPRINT: int
POINTWISE_PANEL: int

_PaddingMode = Literal["reflect", "zeros"]
_Implementation = Literal["fast", "simple"]

def aggregation_forward(
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: _PaddingMode = "reflect",
    implementation: _Implementation = "fast",
    stream: int = 0,
) -> None: ...
def aggregation_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    grad_input: Tensor | None,
    grad_weight: Tensor | None,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: _PaddingMode = "reflect",
    implementation: _Implementation = "fast",
    stream: int = 0,
) -> None: ...
def subtraction2_forward(
    a: Tensor,
    b: Tensor,
    output: Tensor,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: _PaddingMode = "reflect",
    implementation: _Implementation = "fast",
    stream: int = 0,
) -> None: ...
def subtraction2_backward(
    grad_output: Tensor,
    grad_a: Tensor | None,
    grad_b: Tensor | None,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    padding_mode: _PaddingMode = "reflect",
    implementation: _Implementation = "fast",
    stream: int = 0,
) -> None: ...
def pairwise_forward(
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    table: Tensor,
    w1: Tensor,
    w2: Tensor,
    output: Tensor,
    log_sum_exp: Tensor | None,
    *,
    kernel_size: int,
    allow_tf32: bool = False,
    stream: int = 0,
) -> None: ...
def pairwise_backward(
    grad_output: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    table: Tensor,
    w1: Tensor,
    w2: Tensor,
    grad_features: Tensor,
    grad_scale: Tensor,
    grad_shift: Tensor,
    grad_table: Tensor,
    grad_w1: Tensor,
    grad_w2: Tensor,
    *,
    kernel_size: int,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def pairwise_difference(
    features: Tensor,
    centre: Tensor,
    level: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    kernel_size: int,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def pairwise_difference_backward(
    features: Tensor,
    constant: Tensor,
    slope: Tensor,
    grad_features: Tensor,
    *,
    kernel_size: int,
    stream: int = 0,
) -> None: ...
def pairwise_moments(
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    centre: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    kernel_size: int,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def pairwise_moments_backward(
    grad_first: Tensor,
    grad_second: Tensor,
    features: Tensor,
    scale: Tensor,
    shift: Tensor,
    grad_features: Tensor,
    grad_scale: Tensor,
    grad_shift: Tensor,
    *,
    kernel_size: int,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def pairwise_workspace(
    name: str,
    features: Tensor,
    relation_channels: int,
    weight_channels: int,
    *,
    kernel_size: int,
) -> int: ...
def patchwise_hidden_forward(
    phi: Tensor,
    psi: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    hidden: Tensor,
    *,
    kernel_size: int,
    tensor_cores: bool = False,
    allow_tf32: bool = False,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def patchwise_hidden_backward(
    grad_hidden: Tensor,
    phi: Tensor,
    psi: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    grad_phi: Tensor,
    grad_psi: Tensor,
    grad_scale: Tensor,
    grad_shift: Tensor,
    grad_weight: Tensor,
    *,
    kernel_size: int,
    tensor_cores: bool = False,
    allow_tf32: bool = False,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def patchwise_core_forward(
    hidden: Tensor,
    value: Tensor,
    weight: Tensor,
    bias: Tensor,
    output: Tensor,
    *,
    tensor_cores: bool = False,
    allow_tf32: bool = False,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def patchwise_core_backward(
    grad_output: Tensor,
    hidden: Tensor,
    value: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_hidden: Tensor,
    grad_value: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    *,
    tensor_cores: bool = False,
    allow_tf32: bool = False,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def norm_relu_workspace(vectors: int, channels: int) -> int: ...
def channel_moments(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def norm_relu_forward(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    output: Tensor,
    *,
    pool: int = 1,
    stream: int = 0,
) -> None: ...
def norm_relu_sums(
    grad_output: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    sum: Tensor,
    moment: Tensor,
    output: Tensor | None,
    *,
    pool: int = 1,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def norm_relu_backward(
    grad_output: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    constant: Tensor,
    slope: Tensor,
    grad_x: Tensor,
    *,
    pool: int = 1,
    stream: int = 0,
) -> None: ...
def stem_forward(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    output: Tensor,
    *,
    stream: int = 0,
) -> None: ...
def stem_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    grad_x: Tensor | None,
    grad_weight: Tensor,
    grad_shift: Tensor,
    *,
    workspace: Tensor | None = None,
    stream: int = 0,
) -> None: ...
def patchwise_hidden_workspace(
    batch: int,
    relation_channels: int,
    height: int,
    width: int,
    *,
    weight_channels: int,
    kernel_size: int,
) -> int: ...
def patchwise_core_workspace(
    batch: int,
    channels: int,
    height: int,
    width: int,
    *,
    weight_channels: int,
    kernel_size: int,
) -> int: ...
def patchwise_tensor_workspace(
    kernel: str,
    image: Tensor,
    *,
    weight_channels: int,
    kernel_size: int,
    allow_tf32: bool = False,
) -> int | None: ...
def pointwise_forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    panels: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    relu: bool = False,
    addend: Tensor | None = None,
) -> None: ...
def pointwise_panels(
    weight: Tensor, panels: Tensor, *, transposed: bool = False
) -> None: ...
def pointwise_gradient(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    grad_y: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
) -> None: ...
def takes_bfloat16() -> bool: ...
def square(
    window: NDArray[numpy.uint8],
    output: NDArray[numpy.float32],
    *,
    scales: Sequence[float],
    corner: Sequence[int],
    mirrored: bool,
    shift: Sequence[float],
    factor: Sequence[float],
) -> None: ...
def cuda_device_count() -> int: ...
def built_with_cuda() -> bool: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
