"""How long the attention's cores take on a GPU, fused and unfused.

Of 64 images at the sizes of SAN10. Written by //tools:cuda_times, read by
`faster`.
"""

# Where rows come from; a model is what no GPU has been asked.
BASES = [
    "a model of an H200, 2026-11-29-cuda-model/before.json",
]

# Kind, footprint, channels of relation and value, type, pass; ms fused, ms
# unfused, number of the basis.
ROWS = (
    ("pairwise", 3, 4, 16, "float32", "inference", 1.13, 0.668, 0),
    ("pairwise", 7, 16, 64, "float32", "inference", 2.78, 2.96, 0),
    ("pairwise", 7, 32, 128, "float32", "inference", 1.31, 1.44, 0),
    ("pairwise", 7, 64, 256, "float32", "inference", 0.72, 0.708, 0),
    ("pairwise", 7, 128, 512, "float32", "inference", 0.44, 0.351, 0),
    ("pairwise", 3, 4, 16, "float32", "training", 9.83, 1.97, 0),
    ("pairwise", 7, 16, 64, "float32", "training", 22.8, 8.85, 0),
    ("pairwise", 7, 32, 128, "float32", "training", 10.5, 4.3, 0),
    ("pairwise", 7, 64, 256, "float32", "training", 5.89, 2.12, 0),
    ("pairwise", 7, 128, 512, "float32", "training", 4.22, 1.05, 0),
    ("pairwise", 3, 4, 16, "bfloat16", "inference", 1.14, 0.334, 0),
    ("pairwise", 7, 16, 64, "bfloat16", "inference", 2.82, 1.48, 0),
    ("pairwise", 7, 32, 128, "bfloat16", "inference", 1.33, 0.719, 0),
    ("pairwise", 7, 64, 256, "bfloat16", "inference", 0.73, 0.354, 0),
    ("pairwise", 7, 128, 512, "bfloat16", "inference", 0.445, 0.176, 0),
    ("pairwise", 3, 4, 16, "bfloat16", "training", 9.96, 0.983, 0),
    ("pairwise", 7, 16, 64, "bfloat16", "training", 23.2, 4.42, 0),
    ("pairwise", 7, 32, 128, "bfloat16", "training", 10.7, 2.15, 0),
    ("pairwise", 7, 64, 256, "bfloat16", "training", 5.95, 1.06, 0),
    ("pairwise", 7, 128, 512, "bfloat16", "training", 4.24, 0.526, 0),
    ("patchwise", 3, 4, 16, "float32", "inference", 0.553, 0.355, 0),
    ("patchwise", 7, 16, 64, "float32", "inference", 0.691, 1.62, 0),
    ("patchwise", 7, 32, 128, "float32", "inference", 0.633, 0.81, 0),
    ("patchwise", 7, 64, 256, "float32", "inference", 0.519, 0.405, 0),
    ("patchwise", 7, 128, 512, "float32", "inference", 0.464, 0.203, 0),
    ("patchwise", 3, 4, 16, "float32", "training", 2.85, 0.995, 0),
    ("patchwise", 7, 16, 64, "float32", "training", 4.2, 4.58, 0),
    ("patchwise", 7, 32, 128, "float32", "training", 3.35, 2.29, 0),
    ("patchwise", 7, 64, 256, "float32", "training", 2.43, 1.14, 0),
    ("patchwise", 7, 128, 512, "float32", "training", 2.04, 0.572, 0),
    ("patchwise", 3, 4, 16, "bfloat16", "inference", 0.553, 0.177, 0),
    ("patchwise", 7, 16, 64, "bfloat16", "inference", 0.691, 0.81, 0),
    ("patchwise", 7, 32, 128, "bfloat16", "inference", 0.633, 0.405, 0),
    ("patchwise", 7, 64, 256, "bfloat16", "inference", 0.519, 0.203, 0),
    ("patchwise", 7, 128, 512, "bfloat16", "inference", 0.464, 0.101, 0),
    ("patchwise", 3, 4, 16, "bfloat16", "training", 2.85, 0.497, 0),
    ("patchwise", 7, 16, 64, "bfloat16", "training", 4.2, 2.29, 0),
    ("patchwise", 7, 32, 128, "bfloat16", "training", 3.35, 1.14, 0),
    ("patchwise", 7, 64, 256, "bfloat16", "training", 2.43, 0.572, 0),
    ("patchwise", 7, 128, 512, "bfloat16", "training", 2.04, 0.286, 0),
)
