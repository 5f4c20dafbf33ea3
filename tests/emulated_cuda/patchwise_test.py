"""The fused patchwise CUDA kernels, run thread by thread, against the CPU's."""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import kernels

# Batch, relation, weight and value channels, height, width, footprint: partial
# tiles and several, images smaller than the footprint, more channels than a
# block owns and fewer, footprints of several slabs, weight channels by four, by
# two and by one.
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
    (1, 2, 33, 33, 3, 4, 3),
    (1, 1, 1, 2, 41, 5, 11),
    (1, 66, 2, 0, 2, 2, 3),
    (1, 2, 3, 9, 18, 9, 21),
    (2, 9, 4, 32, 9, 10, 7),
    (1, 2, 12, 36, 8, 3, 5),
    (1, 1, 4, 40, 3, 9, 3),
    (1, 1, 4, 4, 6, 5, 13),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def random_arrays(shapes, dtype):
    generator = np.random.default_rng(0)
    return [generator.normal(size=s).astype(dtype) for s in shapes]


def hidden_arrays(shape, dtype):
    """grad_hidden, phi, psi, scale, shift and weight."""
    N, R, G, _, H, W, k = shape
    image, S = (N, H, W, R), R * (k * k + 1)
    small = (1, S, 1, 1)
    shapes = [(N, H, W, G), image, image, small, small, (G, S, 1, 1)]
    return random_arrays(shapes, dtype)


def core_arrays(shape, dtype):
    """grad_output, hidden, value, weight and bias."""
    N, _, G, C, H, W, k = shape
    images = [(N, H, W, C), (N, H, W, G), (N, H, W, C)]
    return random_arrays([*images, (G, k, k, G), (1, G, k, k)], dtype)


def workspace(module, op, image, groups, kernel_size):
    """Memory for a backward pass, not-a-numbers all over."""
    size = getattr(module, f"patchwise_{op}_workspace")
    batch, *sides, channels = image.shape
    sizes = {"weight_channels": groups, "kernel_size": kernel_size}
    count = size(batch, channels, *sides, **sizes)
    return np.full((1, 1, 1, count), np.nan, image.dtype)


def run_hidden(module, shape, grad, *inputs):
    """The output and all gradients."""
    options = {"kernel_size": shape[-1]}
    output, *grads = (np.full_like(a, np.nan) for a in (grad, *inputs))
    module.patchwise_hidden_forward(*inputs, output, **options)
    memory = workspace(module, "hidden", inputs[1], shape[2], shape[-1])
    module.patchwise_hidden_backward(
        grad, *inputs, *grads, **options, workspace=memory
    )
    return [output, *grads]


def run_core(module, shape, grad, *inputs):
    """The output and all gradients."""
    output, *grads = (np.full_like(a, np.nan) for a in (grad, *inputs))
    module.patchwise_core_forward(*inputs, output)
    memory = workspace(module, "core", inputs[1], shape[2], shape[-1])
    module.patchwise_core_backward(grad, *inputs, *grads, workspace=memory)
    return [output, *grads]


OPS = {"hidden": (hidden_arrays, run_hidden), "core": (core_arrays, run_core)}


def check(op, shape, dtype, twice=True, spoil=lambda arrays: None):
    make, run = OPS[op]
    arrays = make(shape, dtype)
    spoil(arrays)
    results = run(kernels, shape, *arrays)
    expected = run(cuda_kernels, shape, *arrays)
    assert len(results) == len(arrays)
    for got, wanted in zip(results, expected, strict=True):
        scale = np.nanmax(np.abs(wanted), initial=0) + 1
        np.testing.assert_allclose(
            got / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype]
        )
    if twice:
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
    check(op, SHAPES[-4], "float32")


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-4], SHAPES[-1]])
def test_images_may_be_channels_of_one(shape):
    """With the same bits; the other channels are neither used nor written."""
    for op, images in (("hidden", (1, 2)), ("core", (2,))):
        make, run = OPS[op]
        arrays = make(shape, "float64")
        expected = run(kernels, shape, *arrays)
        sizes = [arrays[i].shape[3] for i in images]
        wide = (*arrays[1].shape[:3], sum(sizes) + 3)
        for i, size in zip(images, sizes, strict=True):
            whole = np.full(wide, np.nan)
            whole[..., 1 : 1 + size] = arrays[i]
            arrays[i] = whole[..., 1 : 1 + size]
        got = run(kernels, shape, *arrays)
        for result, wanted in zip(got, expected, strict=True):
            assert result.tobytes() == wanted.tobytes()


# Where all taps show it, and where only some do.
@pytest.mark.parametrize("place", [(0, 4, 4), (0, 0, 0), (-1, -1, -1)])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[13]])
@pytest.mark.parametrize(
    ("op", "argument"),
    [("hidden", 1), ("hidden", 2), ("core", 1), ("core", 2)],
    ids=["phi", "psi", "hidden", "value"],
)
def test_not_a_number_is_passed_on(op, argument, shape, place):
    def spoil(arrays):
        arrays[argument][..., -1][place] = np.nan

    check(op, shape, "float64", twice=False, spoil=spoil)


@pytest.mark.parametrize("order", ["descending"], indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_many_images(op):
    # More tiles than blocks: each sums over several, and owns all rows.
    check(op, (520, 1, 1, 1, 9, 1, 1), "float64", twice=False)


@pytest.mark.parametrize("order", ["descending"], indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_the_largest_footprint(op):
    check(op, (1, 1, 1, 1, 3, 2, 127), "float64", twice=False)


def test_what_does_not_fit_shared_memory():
    shape = (1, 1, 1, 8, 2, 2, 127)
    arrays = core_arrays(shape, "float64")
    with pytest.raises(ValueError, match=r"kernel_size must leave .*got 127"):
        run_core(kernels, shape, *arrays)


@pytest.mark.parametrize("op", OPS)
def test_no_images(op):
    shape = (0, 4, 2, 16, 5, 7, 3)
    make, run = OPS[op]
    output, *grads = run(kernels, shape, *make(shape, "float64"))
    assert output.size == 0
    for grad in grads[-2:]:
        assert grad.size > 0
        assert not grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workspace": None}, "must be a tensor that exports DLPack"),
        (
            {"workspace": np.zeros((1, 1, 1, 5))},
            r"must have shape \[1, 1, 1, n\] with n of at least \d+, got 5",
        ),
        (
            {"workspace": np.zeros((1, 1, 1, 5), "float32")},
            "must be float64 where",
        ),
    ],
)
@pytest.mark.parametrize("op", OPS)
def test_the_workspace_is_checked(op, change, message):
    grad, *inputs = OPS[op][0](SHAPES[0], "float64")
    grads = [np.empty_like(a) for a in inputs]
    options = {"kernel_size": 3} if op == "hidden" else {}
    backward = getattr(kernels, f"patchwise_{op}_backward")
    with pytest.raises(ValueError, match=f"workspace {message}"):
        backward(grad, *inputs, *grads, **options, **change)


@pytest.mark.parametrize("op", OPS)
def test_the_workspace_is_apart_from_the_gradients(op):
    grad, *inputs = OPS[op][0]((1, 1, 1, 1, 90, 90, 1), "float64")
    grads = [np.empty_like(a) for a in inputs]
    options = {"kernel_size": 1} if op == "hidden" else {}
    memory = grads[1].reshape(1, 1, 1, -1)
    backward = getattr(kernels, f"patchwise_{op}_backward")
    with pytest.raises(ValueError, match="workspace must not share memory"):
        backward(grad, *inputs, *grads, **options, workspace=memory)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"weight_channels": 0}, "weight_channels must be at least 1, got 0"),
        ({"batch": -1}, "batch must be at least 0, got -1"),
        ({"width": 0}, "must have a height and width from 1 to 2"),
    ],
)
@pytest.mark.parametrize(
    ("op", "channels"), [("hidden", "relation_channels"), ("core", "channels")]
)
def test_the_sizes_of_a_workspace_are_checked(op, channels, sizes, message):
    size = getattr(kernels, f"patchwise_{op}_workspace")
    good = {"batch": 1, channels: 2, "height": 3, "width": 4}
    good |= {"weight_channels": 1, "kernel_size": 3}
    assert size(**good) > 0
    with pytest.raises(ValueError, match=message):
        size(**good | sizes)
