"""Types of the compiled module; the documentation is in the module itself."""

from typing import Any, Literal, Protocol

class Tensor(Protocol):
    """Anything that exports DLPack, such as numpy.ndarray or torch.Tensor."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...

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
    weight: Tensor,
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
def cuda_device_count() -> int: ...
def built_with_cuda() -> bool: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
