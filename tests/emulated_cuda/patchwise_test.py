"""The fused patchwise CUDA kernels, run thread by thread, against the CPU's."""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import kernels

# Batch, relation, weight and value channels, height, width, footprint: partial
# tiles and several, images smaller than the footprint, more channels than a
# block owns and fewer, footprints of several slabs.
SHAPES = [
    (2, 4, 2, 16, 9, 11, 3),
    (1, 1, 3, 6, 1, 1, 5),
    (1, 3, 3, 3, 2, 3, 7),
    (1, 2, 9, 9, 12, 9, 7),
    (2, 17, 2, 18, 5, 4, 3),
    (1, 2, 1, 1, 1, 9, 11),
    (1, 2, 17, 34, 7, 7, 5),
    (1, 3, 1, 10, 17, 3, 1),
    (1, 1, 2, 2, 9, 5, 13),
    (1, 1, 1, 1, 17, 18, 9),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@pytest.fixture(params=["ascending", "descending"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setenv("EMULATED_CUDA_ORDER", request.param)


def random_arrays(shapes, dtype):
    generator = np.random.default_rng(0)
    return [generator.normal(size=s).astype(dtype) for s in shapes]


def hidden_arrays(shape, dtype):
    """grad_hidden, phi, psi, scale, shift and weight."""
    N, R, G, _, H, W, k = shape
    image, S = (N, R, H, W), R * (k * k + 1)
    small = (1, S, 1, 1)
    shapes = [(N, G, H, W), image, image, small, small, (G, S, 1, 1)]
    return random_arrays(shapes, dtype)


def core_arrays(shape, dtype):
    """grad_output, hidden, value, weight and bias."""
    N, _, G, C, H, W, k = shape
    images = [(N, C, H, W), (N, G, H, W), (N, C, H, W)]
    return random_arrays([*images, (G, k, k, G), (1, G, k, k)], dtype)


def run_hidden(module, shape, grad, *inputs):
    """The output."""
    output = np.full_like(grad, np.nan)
    module.patchwise_hidden_forward(*inputs, output, kernel_size=shape[-1])
    return [output]


def run_core(module, shape, grad, *inputs):
    output = np.full_like(grad, np.nan)
    module.patchwise_core_forward(*inputs, output)
    return [output]


OPS = {"hidden": (hidden_arrays, run_hidden), "core": (core_arrays, run_core)}


def check(op, shape, dtype):
    make, run = OPS[op]
    arrays = make(shape, dtype)
    results = run(kernels, shape, *arrays)
    expected = run(cuda_kernels, shape, *arrays)
    for got, wanted in zip(results, expected, strict=True):
        scale = np.abs(wanted).max() + 1
        np.testing.assert_allclose(
            got / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype]
        )
    again = run(kernels, shape, *arrays)
    for first, second in zip(results, again, strict=True):
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPS)
def test_equals_the_cpu(op, shape):
    check(op, shape, "float64")


@pytest.mark.parametrize("op", OPS)
def test_equals_the_cpu_in_float32(op):
    check(op, SHAPES[0], "float32")
