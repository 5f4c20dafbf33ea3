"""Every package that holds code of our own; the lint tests read them all."""

PACKAGES = [
    "cuda_kernels",
    "san",
    "san/data",
    "tests/config",
    "tests/data",
    "tests/networks",
    "tests/ops",
    "tests/tools",
    "third_party/python",
    "tools",
]
