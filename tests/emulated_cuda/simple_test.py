"""The simple CUDA kernels, run thread by thread, against those of the CPU."""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import kernels
from tests.kernels.cases import TOLERANCE, random_arrays
from tests.kernels.numpy_reference import Window

# Height, width; more pixels than a block has threads, and fewer.
CASES = [
    ((1, 1), Window(3, padding=1)),
    ((5, 4), Window(7, padding=3)),
    ((9, 12), Window(3, 2, 1, 2)),
    ((18, 17), Window(5, padding=2, padding_mode="zeros")),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(("size", "window"), CASES)
def test_aggregation_is_that_of_the_cpu(size, window, dtype):
    height, width = (window.outputs(side) for side in size)
    grad, input, weight = random_arrays(
        (2, 6, height, width),
        (2, 6, *size),
        (2, 3, window.kernel_size**2, height * width),
        dtype=dtype,
    )
    results = []
    for module in (kernels, cuda_kernels):
        output, *grads = map(np.zeros_like, (grad, input, weight))
        options = {**window.options, "implementation": "simple"}
        module.aggregation_forward(input, weight, output, **options)
        module.aggregation_backward(grad, input, weight, *grads, **options)
        results.append([output, *grads])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(
            result, expected, rtol=0, atol=20 * TOLERANCE[dtype]
        )


@pytest.mark.parametrize(("size", "window"), CASES)
def test_subtraction2_is_that_of_the_cpu(size, window):
    height, width = (window.outputs(side) for side in size)
    a, b, grad = random_arrays(
        (2, 3, *size),
        (2, 3, *size),
        (2, 3, window.kernel_size**2, height * width),
    )
    results = []
    for module in (kernels, cuda_kernels):
        output, *grads = map(np.zeros_like, (grad, a, b))
        options = {**window.options, "implementation": "simple"}
        module.subtraction2_forward(a, b, output, **options)
        module.subtraction2_backward(grad, *grads, **options)
        results.append([output, *grads])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)
