"""float16 in every bit pattern; bfloat16 is in torch_tensors_test.py."""

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.cases import PATHS, use_path

EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)


def products(input, weight, path):
    """Returns input * weight by an aggregation with a footprint of 1."""
    shape = (1, 1, 2**8, 2**8)
    output = np.full(shape, np.nan, input.dtype)
    cuda_kernels.aggregation_forward(
        input.reshape(shape),
        np.full((1, 1, 1, 2**16), weight, input.dtype),
        output,
        kernel_size=1,
        **use_path(path),
    )
    return output.ravel()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("weight", [1, -0.5, 1 / 3, 2**-13, 1.001, 3000])
def test_rounds_as_numpy_does(weight, path):
    weight = np.float16(weight)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = EVERY_HALF.astype(np.float32) * np.float32(weight)
        wanted = wide.astype(np.float16)
    found = products(EVERY_HALF, weight, path)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("path", PATHS)
def test_sums_in_float32(path):
    # 49 products of 1 and 1/4096: float16 sums would stop growing.
    input = np.ones((1, 1, 7, 7), np.float16)
    weight = np.full((1, 1, 49, 1), 2.0**-12, np.float16)
    weight[0, 0, 0] = 1
    output = np.zeros((1, 1, 1, 1), np.float16)
    cuda_kernels.aggregation_forward(
        input, weight, output, kernel_size=7, **use_path(path)
    )
    assert output.item() == np.float16(1 + 48 / 4096)
