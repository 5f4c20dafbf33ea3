"""The module cuda_kernels._kernels whose CUDA device is the CPU.

Its functions take NumPy arrays and run the project's CUDA kernels on them,
thread by thread, in memory between guards; see cuda_runtime.h and guarded.py.
"""

from tests.emulated_cuda import _kernels
from tests.emulated_cuda.guarded import Guarded

kernels = Guarded(_kernels)

__all__ = ["kernels"]
