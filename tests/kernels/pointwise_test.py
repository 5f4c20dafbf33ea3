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
            {"relu": True, "addend": before},
            np.maximum(x, 0),
            before,
        ),
        ((None, None, panels, bias), {"addend": before}, x, bias + before),
    ):
        expected = product(seen, panels, outputs) + added
        apart = np.full_like(before, np.nan), options
        for y, how in (apart, onto(before, options)):
            cuda_kernels.pointwise_forward(x, *tensors, y, **how)
            np.testing.assert_allclose(
                y, expected, rtol=0, atol=BOUNDS[dtype] * abs(expected).max()
            )


def onto(before, options):
    """A y that is its own addend, if there is one."""
    y = before.copy()
    return y, {**options, "addend": y} if "addend" in options else options


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", SIZES)
def test_panels_equal_their_definition(size, dtype):
    weight = random_arrays((1, 1, size[-1], size[-2]), dtype=dtype)[0]
    expected = panels_of(weight[0, 0])
    for matrix, transposed in ((weight, False), (weight[0, 0].T, True)):
        panels = np.full(expected.shape, np.nan, dtype)
        matrix = np.ascontiguousarray(matrix).reshape(1, 1, *matrix.shape[-2:])
        cuda_kernels.pointwise_panels(matrix, panels, transposed=transposed)
        np.testing.assert_array_equal(panels, expected)


# And so many pixels that there are bands of several steps.
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("size", [*SIZES, (40, 10, 25, 9, 19)])
def test_gradient_equals_its_definition(size, dtype):
    x, scale, shift, _, _, grad_y = arguments(size, dtype)
    channels, outputs = size[3:]
    for norm, seen in (
        ((None, None), x),
        ((scale, shift), np.maximum(scale * x + shift, 0)),
    ):
        grad_weight = np.full((1, 1, outputs, channels), np.nan, dtype)
        grad_bias = np.full((1, 1, 1, outputs), np.nan, dtype)
        cuda_kernels.pointwise_gradient(
            x, *norm, grad_y, grad_weight, grad_bias
        )
        pixels = grad_y.reshape(-1, outputs).astype("float64")
        activations = seen.reshape(-1, channels).astype("float64")
        for result, expected in (
            (grad_weight[0, 0], pixels.T @ activations),
            (grad_bias[0, 0, 0], pixels.sum(0)),
        ):
            bound = BOUNDS[dtype] * abs(expected).max()
            np.testing.assert_allclose(result, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("empty", [0, 3, 4])
def test_gradient_of_no_elements(empty):
    size = [2, 3, 4, 5, 6]
    size[empty] = 0
    channels, outputs = size[3:]
    x = np.zeros(size[:4], np.float32)
    grad_y = np.ones((*size[:3], outputs), np.float32)
    grad_weight = np.full((1, 1, outputs, channels), np.nan, np.float32)
    grad_bias = np.full((1, 1, 1, outputs), np.nan, np.float32)
    cuda_kernels.pointwise_gradient(
        x, None, None, grad_y, grad_weight, grad_bias
    )
    assert (grad_weight == 0).all()
    assert (grad_bias == np.prod(size[:3])).all()


def test_gradient_writes_nothing_beside_its_output():
    x, _, _, _, _, grad_y = arguments((1, 2, 13, 9, 37), "float32")
    memory = np.full(9 * 37 + 64, 7, np.float32)
    grad_weight = memory[32 : 32 + 9 * 37].reshape(1, 1, 37, 9)
    grad_bias = np.zeros((1, 1, 1, 37), np.float32)
    cuda_kernels.pointwise_gradient(
        x, None, None, grad_y, grad_weight, grad_bias
    )
    assert (memory[:32] == 7).all() and (memory[-32:] == 7).all()


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
    refused(call, f"{op}: addend must have the shape of y", addend=wrong)
    refused(call, f"{op}: addend must have the dtype of x", addend=half)
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


def test_errors_of_panels_and_gradient():
    op, float32 = "pointwise_panels", np.float32
    weight = np.zeros((1, 1, 5, 33), float32)

    def pack(**changes):
        given = {"weight": weight, "panels": np.zeros((1, 1, 33, 32), float32)}
        cuda_kernels.pointwise_panels(**(given | changes))

    pack()
    refused(pack, f"{op}: panels must have shape [1, ceil(O", transposed=True)
    half = weight.astype("float16")
    refused(pack, f"{op}: weight must be float32, float64 or bf", weight=half)
    op = "pointwise_gradient"
    x, scale, shift, _, grad_bias, grad_y = arguments((2, 3, 4, 5, 33), float32)

    def gradient(**changes):
        names = "x", "scale", "shift", "grad_y", "grad_weight", "grad_bias"
        grad_weight = np.zeros((1, 1, 33, 5), float32)
        given = x, scale, shift, grad_y, grad_weight, grad_bias
        cuda_kernels.pointwise_gradient(
            **(dict(zip(names, given, strict=True)) | changes)
        )

    gradient()
    refused(gradient, f"{op}: scale must have shape [1, 1, 1,", scale=grad_bias)
    refused(gradient, f"{op}: shift must be given if and only", shift=None)
    refused(gradient, f"{op}: grad_weight must have shape [1", grad_weight=x)
    refused(gradient, f"{op}: grad_y must have shape [N, H, W", grad_y=x[:1])
    double = np.zeros((1, 1, 1, 33))
    refused(
        gradient, f"{op}: grad_bias must be float32 where x", grad_bias=double
    )
