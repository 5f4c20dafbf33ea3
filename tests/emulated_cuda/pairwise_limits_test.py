"""The pairwise kernels at the edge of what fits_pairwise lets them have."""

import pytest
import torch

import cuda_kernels
from san.ops.pairwise_attention import fits_pairwise
from tests.emulated_cuda import kernels
from tests.emulated_cuda.pairwise_test import OPS, assert_close, calls, run


# Wide relations, many weights, many values; a multiple of G as values.
@pytest.mark.parametrize(
    "channels", [(508, 31, 93), (9, 491, 491), (4, 1, 12189)]
)
@pytest.mark.parametrize("op", OPS)
def test_the_widest_that_fit_the_smallest_gpu(op, channels, monkeypatch):
    monkeypatch.setenv("EMULATED_CUDA_SHARED_BYTES", str(99 * 1024))
    relation, groups, value = channels
    cuda = torch.device("cuda")
    assert fits_pairwise(cuda, *channels, 3)
    assert not fits_pairwise(cuda, relation, groups, value + groups, 3)
    image = (1, 1, 1, 3)
    arguments = calls(channels, image)[op]
    results = run(kernels, op, arguments, channels, image)
    expected = run(cuda_kernels, op, arguments, channels, image)
    assert_close(results, expected, 1e-11)
