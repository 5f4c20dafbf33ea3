"""How the sources are compiled, as plain values.

Loaded by BUILD and, as Python, by tools/gpu_check: nothing but literals here.
"""

# Optimised in every compilation mode.
COPTS = [
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-Wall",
    "-Wextra",
]

# The flags for each instruction set of x86; which one runs is decided by the
# processor at run time. Others have the baseline alone.
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": [
        "-mavx2",
        "-mfma",
        "-mf16c",
    ],
    "avx512": [
        "-mavx512f",
        "-mavx512vl",
        "-mavx512bw",
        "-mfma",
        "-mf16c",
    ],
}

# A folder for each family of operators; its inner loops, which are compiled
# once for each instruction set, are in the file named here.
FAMILIES = {
    "norm_relu": "norm_relu/rows.cc",
    "pairwise": "pairwise/rows.cc",
    "patchwise": "patchwise/kernels.cc",
    "pointwise": "pointwise/rows.cc",
    "resize": "resize/row_loops.cc",
    "window_ops": "window_ops/row_kernels.cc",
}
