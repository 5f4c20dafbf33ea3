"""Every package that holds code of our own; the lint tests read them all."""

PACKAGES = [
    "cuda_kernels",
    "eval",
    "san",
    "san/data",
    "san/jobs",
    "tests/cuda",
    "tests/data",
    "tests/emulated_cuda",
    "tests/eval",
    "tests/jobs",
    "tests/kernels",
    "tests/lint",
    "tests/networks",
    "tests/ops",
    "tests/tools",
    "tests/train",
    "third_party/python",
    "tools",
    "tools/benchmark",
    "train",
]
