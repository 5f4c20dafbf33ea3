"""The module cuda_kernels._kernels whose CUDA device is the CPU.

Its functions take NumPy arrays and run the project's CUDA kernels on them,
thread by thread; see cuda_runtime.h.
"""

from tests.emulated_cuda import _kernels as kernels

__all__ = ["kernels"]
