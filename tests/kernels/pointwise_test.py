"""The kernel of the 1x1 convolution, with NumPy alone."""

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.calls import refused
from tests.kernels.cases import random_arrays

BOUNDS = {"float64": 1e-12, "float32": 1e-5}

# N, H, W, C, O: one of each; partial vectors, tiles and panels; more pixels
# than a block; more channels than are summed at a time, twice with a rest; few
# pixels and so many panels that they are shared out.
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 33),
    (1, 9, 11, 16, 24),
    (3, 7, 10, 65, 47),
    (1, 2, 13, 513, 40),
    (1, 1, 3, 1030, 5),
    (1, 3, 7, 20, 545),
    (20, 10, 9, 3, 70),
]


@pytest.fixture(params=cuda_kernels.instruction_sets(), autouse=True)
def instruction_set(request):
    cuda_kernels.use_instruction_set(request.param)
    yield
    cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


def panels_of(weight):
    rows = len(weight)
    width = cuda_kernels.POINTWISE_PANEL
    full = np.pad(weight, ((0, -rows % width), (0, 0)))
    return np.stack(np.split(full, len(full) // width))[None].transpose(
        0, 1, 3, 2
    )


def arguments(size, dtype):
    *image, channels, outputs = size
    vector = 1, 1, 1, channels
    x, scale, shift, bias, y = random_arrays(
        (*image, channels),
        vector,
        vector,
        (1, 1, 1, outputs),
        (*image, outputs),
        dtype=dtype,
    )
    weight = random_arrays((1, 1, outputs, channels), dtype=dtype)[0][0, 0]
    weight /= channels**0.5
    return x, scale, shift, np.ascontiguousarray(panels_of(weight)), bias, y


def product(x, panels, outputs):
    weight = np.concatenate(list(panels[0]), 1)[:, :outputs]
    return x.astype("float64") @ weight.astype("float64")


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_its_definition(size, dtype):
    x, scale, shift, panels, bias, before = arguments(size, dtype)
    outputs = size[-1]
    for tensors, options, seen, added in (
        ((None, None, panels, bias), {}, x, bias),
        ((None, None, panels, None), {}, x, 0),
        (
            (scale, shift, panels, bias),
            {"relu": True},
            np.maximum(scale * x + shift, 0),
            bias,
        ),
        (
            (None, None, panels, None),
            {"relu": True, "add": True},
            np.maximum(x, 0),
            before,
        ),
    ):
        y = before.copy() if "add" in options else np.full_like(before, np.nan)
        cuda_kernels.pointwise_forward(x, *tensors, y, **options)
        expected = product(seen, panels, outputs) + added
        np.testing.assert_allclose(
            y, expected, rtol=0, atol=BOUNDS[dtype] * abs(expected).max()
        )


def test_writes_nothing_beside_its_output():
    x, _, _, panels, bias, y = arguments((1, 2, 13, 9, 37), "float32")
    memory = np.full(y.size + 64, 7, np.float32)
    inner = memory[32 : 32 + y.size].reshape(y.shape)
    cuda_kernels.pointwise_forward(x, None, None, panels, bias, inner)
    assert (memory[:32] == 7).all() and (memory[32 + y.size :] == 7).all()
    assert abs(inner - product(x, panels, 37) - bias).max() < 1e-5


def test_keeps_what_is_no_number():
    x, scale, shift, panels, bias, y = arguments((1, 1, 4, 8, 3), "float32")
    x[0, 0, 0, 0], x[0, 0, 1, 0], x[0, 0, 2, 0] = np.nan, np.inf, -np.inf
    scale[:] = 1
    cuda_kernels.pointwise_forward(x, scale, shift, panels, bias, y, relu=True)
    assert np.isnan(y[0, 0, 0]).all()
    assert np.isinf(y[0, 0, 1]).all()
    assert np.isfinite(y[0, 0, 2:]).all()


@pytest.mark.parametrize("empty", [0, 1, 3, 4])
def test_no_elements(empty):
    size = [2, 3, 4, 5, 6]
    size[empty] = 0
    channels, outputs = size[3:]
    x = np.zeros(size[:4], np.float32)
    panels = np.zeros((1, -(-outputs // 32), channels, 32), np.float32)
    bias = np.ones((1, 1, 1, outputs), np.float32)
    y = np.full((*size[:3], outputs), np.nan, np.float32)
    cuda_kernels.pointwise_forward(x, None, None, panels, bias, y)
    assert (y == 1).all()


def test_errors():
    def call(**changes):
        names = "x", "scale", "shift", "panels", "bias", "y"
        tensors = arguments((2, 3, 4, 5, 33), "float32")
        options = {"relu": True}
        cuda_kernels.pointwise_forward(
            **(dict(zip(names, tensors, strict=True)) | options | changes)
        )

    op, float32 = "pointwise_forward", np.float32
    half = np.zeros((2, 3, 4, 5), np.float16)
    refused(call, f"{op}: x must be float32, float64 or bf", x=half)
    wrong = np.zeros((1, 1, 5, 32), float32)
    refused(call, f"{op}: panels must have shape [1, ceil(O", panels=wrong)
    refused(call, f"{op}: y must have shape [N, H, W, O]", y=wrong)
    refused(call, f"{op}: bias must have shape [1, 1, 1, ch", bias=wrong)
    double = np.zeros((1, 1, 1, 33))
    refused(call, f"{op}: bias must be float32 where x is", bias=double)
    refused(call, f"{op}: shift must be given if and only if", shift=None)
    refused(call, f"{op}: relu must be True with scale", relu=False)
    same = np.zeros((2, 3, 4, 33), float32)
    panels = np.zeros((1, 2, 33, 32), float32)
    vector = np.zeros((1, 1, 1, 33), float32)
    refused(
        call,
        f"{op}: y must not share memory with x",
        x=same,
        y=same,
        scale=vector,
        shift=vector,
        panels=panels,
    )
