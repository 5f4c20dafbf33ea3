"""The operators of self-attention networks, on CPU and CUDA.

Registered with torch.library in the namespace san, so that they work in eager
mode, torch.compile, torch.export, autocast and DistributedDataParallel, for
tensors of any strides. aggregation, correlation and the subtractions have
derivatives of every order and in both modes, and rules of vmap; the others,
which fuse layers, have first derivatives in reverse mode and say so where asked
for more.
"""

from san.ops.aggregation import aggregation
from san.ops.correlation import correlation
from san.ops.norm_relu import norm_relu, norm_relu_linear
from san.ops.pairwise_attention import pairwise_attention
from san.ops.patchwise_attention import patchwise_attention
from san.ops.pointwise import panels_of, takes_weight
from san.ops.stem import stem
from san.ops.subtraction import subtraction, subtraction2

__all__ = [
    "aggregation",
    "correlation",
    "norm_relu",
    "norm_relu_linear",
    "pairwise_attention",
    "panels_of",
    "patchwise_attention",
    "stem",
    "subtraction",
    "subtraction2",
    "takes_weight",
]
