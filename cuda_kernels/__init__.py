"""The compiled kernels, for NumPy arrays and torch tensors alike.

Every tensor of an operator is any object with `__dlpack__` (float32, float64, float16 or
bfloat16; dense and row-major; all of one dtype on one device, CPU or CUDA).
Images are NumPy's: whatever exports the buffer protocol. Outputs
are given by the caller and written in place. This package knows
nothing of autograd or of torch: `san.ops` is the interface for networks.
"""

from cuda_kernels._kernels import (
    LARGEST_PATCHWISE_FOOTPRINT,
    aggregation_backward,
    aggregation_forward,
    built_with_cuda,
    channel_moments,
    cuda_device_count,
    instruction_sets,
    norm_relu_backward,
    norm_relu_forward,
    norm_relu_sums,
    norm_relu_workspace,
    pairwise_backward,
    pairwise_difference,
    pairwise_difference_backward,
    pairwise_forward,
    pairwise_moments,
    pairwise_moments_backward,
    pairwise_workspace,
    patchwise_core_backward,
    patchwise_core_forward,
    patchwise_core_workspace,
    patchwise_hidden_backward,
    patchwise_hidden_forward,
    patchwise_hidden_workspace,
    square,
    stem_backward,
    stem_forward,
    subtraction2_backward,
    subtraction2_forward,
    use_instruction_set,
)

__all__ = [
    "LARGEST_PATCHWISE_FOOTPRINT",
    "aggregation_backward",
    "aggregation_forward",
    "built_with_cuda",
    "channel_moments",
    "cuda_device_count",
    "instruction_sets",
    "norm_relu_backward",
    "norm_relu_forward",
    "norm_relu_sums",
    "norm_relu_workspace",
    "pairwise_backward",
    "pairwise_difference",
    "pairwise_difference_backward",
    "pairwise_forward",
    "pairwise_moments",
    "pairwise_moments_backward",
    "pairwise_workspace",
    "patchwise_core_backward",
    "patchwise_core_forward",
    "patchwise_core_workspace",
    "patchwise_hidden_backward",
    "patchwise_hidden_forward",
    "patchwise_hidden_workspace",
    "square",
    "stem_backward",
    "stem_forward",
    "subtraction2_backward",
    "subtraction2_forward",
    "use_instruction_set",
]
