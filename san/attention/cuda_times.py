"""How long the attention's cores take on a GPU, fused and unfused.

Of 64 images at the sizes of SAN10. Written by //tools:cuda_times, read by
`faster`.
"""

# Where rows come from; a model is what no GPU has been asked.
BASES = [
    "a model of an H200, 2026-11-29-cuda-model/after.json",
]

# Kind, footprint, channels of relation and value, type, pass; ms fused, ms
# unfused, number of the basis.
ROWS = (
    ("pairwise", 3, 4, 16, "float32", "inference", 0.0868, 0.668, 0),
    ("pairwise", 7, 16, 64, "float32", "inference", 0.412, 2.96, 0),
    ("pairwise", 7, 32, 128, "float32", "inference", 0.328, 1.44, 0),
    ("pairwise", 7, 64, 256, "float32", "inference", 0.171, 0.708, 0),
    ("pairwise", 7, 128, 512, "float32", "inference", 0.112, 0.351, 0),
    ("pairwise", 3, 4, 16, "float32", "training", 1.04, 1.97, 0),
    ("pairwise", 7, 16, 64, "float32", "training", 2.53, 8.85, 0),
    ("pairwise", 7, 32, 128, "float32", "training", 1.88, 4.3, 0),
    ("pairwise", 7, 64, 256, "float32", "training", 1.09, 2.12, 0),
    ("pairwise", 7, 128, 512, "float32", "training", 0.782, 1.05, 0),
    ("pairwise", 3, 4, 16, "bfloat16", "inference", 0.0953, 0.334, 0),
    ("pairwise", 7, 16, 64, "bfloat16", "inference", 0.283, 1.48, 0),
    ("pairwise", 7, 32, 128, "bfloat16", "inference", 0.185, 0.719, 0),
    ("pairwise", 7, 64, 256, "bfloat16", "inference", 0.0893, 0.354, 0),
    ("pairwise", 7, 128, 512, "bfloat16", "inference", 0.0464, 0.176, 0),
    ("pairwise", 3, 4, 16, "bfloat16", "training", 0.966, 0.983, 0),
    ("pairwise", 7, 16, 64, "bfloat16", "training", 1.52, 4.42, 0),
    ("pairwise", 7, 32, 128, "bfloat16", "training", 0.94, 2.15, 0),
    ("pairwise", 7, 64, 256, "bfloat16", "training", 0.484, 1.06, 0),
    ("pairwise", 7, 128, 512, "bfloat16", "training", 0.299, 0.526, 0),
    ("patchwise", 3, 4, 16, "float32", "inference", 0.298, 0.355, 0),
    ("patchwise", 7, 16, 64, "float32", "inference", 0.288, 1.62, 0),
    ("patchwise", 7, 32, 128, "float32", "inference", 0.188, 0.81, 0),
    ("patchwise", 7, 64, 256, "float32", "inference", 0.114, 0.405, 0),
    ("patchwise", 7, 128, 512, "float32", "inference", 0.0929, 0.203, 0),
    ("patchwise", 3, 4, 16, "float32", "training", 1.23, 0.995, 0),
    ("patchwise", 7, 16, 64, "float32", "training", 1.42, 4.58, 0),
    ("patchwise", 7, 32, 128, "float32", "training", 1.06, 2.29, 0),
    ("patchwise", 7, 64, 256, "float32", "training", 0.844, 1.14, 0),
    ("patchwise", 7, 128, 512, "float32", "training", 0.976, 0.572, 0),
    ("patchwise", 3, 4, 16, "bfloat16", "inference", 0.245, 0.177, 0),
    ("patchwise", 7, 16, 64, "bfloat16", "inference", 0.233, 0.81, 0),
    ("patchwise", 7, 32, 128, "bfloat16", "inference", 0.124, 0.405, 0),
    ("patchwise", 7, 64, 256, "bfloat16", "inference", 0.0749, 0.203, 0),
    ("patchwise", 7, 128, 512, "bfloat16", "inference", 0.0565, 0.101, 0),
    ("patchwise", 3, 4, 16, "bfloat16", "training", 1.04, 0.497, 0),
    ("patchwise", 7, 16, 64, "bfloat16", "training", 1.19, 2.29, 0),
    ("patchwise", 7, 32, 128, "bfloat16", "training", 0.782, 1.14, 0),
    ("patchwise", 7, 64, 256, "bfloat16", "training", 0.57, 0.572, 0),
    ("patchwise", 7, 128, 512, "bfloat16", "training", 0.52, 0.286, 0),
)
