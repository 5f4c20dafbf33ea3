"""Equal bits for every number of threads and in both layouts, without torch."""

import os
import subprocess
import sys

import pytest

# Prints a digest of every op's results. Layer sizes of SAN10, a batch of 2.
PROGRAM = """
import hashlib, sys
import numpy as np
import cuda_kernels

rng = np.random.default_rng(3)
digest = hashlib.sha256()
for size, kernel_size, channels, groups in (
    (30, 3, 16, 2), (28, 7, 24, 3), (14, 7, 32, 4), (7, 7, 64, 8)
):
    taps, outputs = kernel_size**2, size**2
    def random(*shape):
        return rng.normal(size=(2, *shape)).astype(sys.argv[2])
    def image(channels):
        pixels = random(channels, size, size)
        if sys.argv[3] == "row-major":
            return pixels
        return pixels.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    x, g, a, b = map(image, (channels, channels, 4, 4))
    weight, taps_grad = random(groups, taps, outputs), random(4, taps, outputs)
    out, grad_x, grad_w = np.empty_like(x), np.empty_like(x), weight.copy()
    relation, grad_a, grad_b = taps_grad.copy(), a.copy("K"), b.copy("K")
    options = dict(
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        implementation=sys.argv[1],
    )
    cuda_kernels.aggregation_forward(x, weight, out, **options)
    cuda_kernels.aggregation_backward(g, x, weight, grad_x, grad_w, **options)
    cuda_kernels.subtraction2_forward(a, b, relation, **options)
    cuda_kernels.subtraction2_backward(taps_grad, grad_a, grad_b, **options)
    for result in (out, grad_x, grad_w, relation, grad_a, grad_b):
        digest.update(result.tobytes())
assert "torch" not in sys.modules
print(digest.hexdigest())
"""


def digest(
    implementation: str, dtype: str, threads: int, layout: str = "row-major"
) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, implementation, dtype, layout],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("implementation", ["fast", "simple"])
def test_bits_do_not_depend_on_threads(implementation, dtype):
    alone = digest(implementation, dtype, 1)
    assert len(alone.strip()) == 64
    for threads in (1, 2, 5):
        assert digest(implementation, dtype, threads) == alone
    for threads in (1, 3):
        found = digest(implementation, dtype, threads, "channels-last")
        assert found == alone
