"""What nvcc is told about every source, as plain values.

Loaded by cuda_library.bzl and, as Python, by tools/gpu_check: nothing but
literals here.
"""

NVCC_COPTS = [
    "-std=c++17",
    "-O3",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden,-Wall,-Wextra",
]
