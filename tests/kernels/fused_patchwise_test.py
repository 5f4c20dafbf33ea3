"""The kernels of the fused patchwise attention against their definition."""

import numpy as np
import pytest

import cuda_kernels

# Batch, relation, weight and value channels, height, width, footprint: odd
# sizes, images smaller than the footprint, several images in a band and
# several bands in an image, tails of every tile.
SHAPES = [
    (2, 4, 2, 16, 9, 11, 3),
    (3, 5, 3, 6, 7, 7, 7),
    (8, 2, 8, 64, 1, 1, 3),
    (5, 6, 4, 8, 2, 3, 7),
    (1, 3, 1, 1, 1, 9, 7),
    (2, 3, 5, 5, 13, 13, 1),
    (9, 4, 8, 16, 7, 7, 11),
    (2, 2, 2, 4, 40, 37, 9),
    (3, 4, 8, 16, 14, 14, 5),
    (2, 9, 17, 34, 28, 28, 3),
    (2, 4, 2, 2, 130, 9, 3),
    (1, 2, 2, 2, 3, 1100, 3),
    # Channels fill vectors: smaller than the footprint, several images,
    # several members at once and one more, and more pixels than backward takes.
    (3, 16, 16, 32, 2, 3, 7),
    (2, 48, 32, 288, 9, 7, 5),
    (5, 16, 64, 64, 5, 7, 3),
    (1, 16, 16, 16, 65, 64, 3),
]
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}


def taps(image, size):
    """All taps of all pixels, mirrored at the edges: [N, C, K, P]."""
    half = size // 2
    height, width = image.shape[2:]
    padding = ((0, 0), (0, 0), (half, half), (half, half))
    padded = np.pad(image, padding, mode="reflect")
    return np.stack(
        [
            padded[:, :, i : i + height, j : j + width].reshape(
                *image.shape[:2], -1
            )
            for i in range(size)
            for j in range(size)
        ],
        axis=2,
    )


def untaps(grad, shape, size):
    """The transpose of taps."""
    pixels = np.arange(np.prod(shape[2:])).reshape(1, 1, *shape[2:])
    index = taps(pixels, size)[0, 0]
    result = np.zeros((*shape[:2], pixels.size))
    np.add.at(result, (slice(None), slice(None), index), grad)
    return result.reshape(shape)


def expected_hidden(grad, phi, psi, scale, shift, weight, kernel_size):
    batch, channels = phi.shape[:2]
    x = np.concatenate(
        [
            phi.reshape(batch, channels, -1),
            taps(psi, kernel_size).reshape(batch, -1, phi[0, 0].size),
        ],
        axis=1,
    )
    matrix = weight[:, :, 0, 0]
    scales = scale.reshape(-1, 1)
    y = x * scales + shift.reshape(-1, 1)
    grad = grad.reshape(*grad.shape[:2], -1)
    grad_y = np.where(y <= 0, 0, np.einsum("ngp,gs->nsp", grad, matrix))
    grad_x = grad_y * scales
    rectified = np.maximum(y, 0)
    return (
        np.einsum("gs,nsp->ngp", matrix, rectified).reshape(
            batch, -1, *psi.shape[2:]
        ),
        grad_x[:, :channels].reshape(phi.shape),
        untaps(
            grad_x[:, channels:].reshape(batch, channels, kernel_size**2, -1),
            psi.shape,
            kernel_size,
        ),
        (grad_y * x).sum((0, 2)).reshape(scale.shape),
        grad_y.sum((0, 2)).reshape(shift.shape),
        np.einsum("ngp,nsp->gs", grad, rectified).reshape(weight.shape),
    )


def expected_core(grad, hidden, value, weight, bias, kernel_size):
    size, groups = kernel_size, weight.shape[0]
    batch, channels = value.shape[:2]
    split = (batch, channels // groups, groups)
    x = taps(value, size).reshape(*split, size * size, -1)
    z = hidden.reshape(batch, groups, -1)
    matrix = weight.reshape(groups, size * size, groups)
    mapped = np.einsum("gtf,nfp->ngtp", matrix, z) + bias.reshape(groups, -1, 1)
    grad = grad.reshape(*split, -1)
    grad_mapped = np.einsum("nmgp,nmgtp->ngtp", grad, x)
    grad_x = np.einsum("nmgp,ngtp->nmgtp", grad, mapped)
    return (
        np.einsum("ngtp,nmgtp->nmgp", mapped, x).reshape(value.shape),
        np.einsum("gtf,ngtp->nfp", matrix, grad_mapped).reshape(hidden.shape),
        untaps(
            grad_x.reshape(batch, channels, size * size, -1), value.shape, size
        ),
        np.einsum("ngtp,nfp->gtf", grad_mapped, z).reshape(weight.shape),
        grad_mapped.sum((0, 3)).reshape(bias.shape),
    )


def random_arrays(shapes, dtype="float64"):
    generator = np.random.default_rng(0)
    return [generator.normal(size=s).astype(dtype) for s in shapes]


def hidden_arrays(shape, dtype="float64"):
    """grad_hidden, phi, psi, scale, shift and weight."""
    N, R, G, _, H, W, k = shape
    image, S = (N, H, W, R), R * (k * k + 1)
    small = (1, S, 1, 1)
    return random_arrays(
        [(N, H, W, G), image, image, small, small, (G, S, 1, 1)], dtype
    )


def core_arrays(shape, dtype="float64"):
    """grad_output, hidden, value, weight and bias."""
    N, _, G, C, H, W, k = shape
    images = [(N, H, W, C), (N, H, W, G), (N, H, W, C)]
    return random_arrays([*images, (G, k, k, G), (1, G, k, k)], dtype)


# Which arguments, and which results, are images.
IMAGES = {"hidden": (0, 1, 2), "core": (0, 1, 2)}


def defined(op, arrays, kernel_size):
    """What the definition, which has [N, C, H, W], makes of the arrays."""
    exact = [a.astype("float64") for a in arrays]
    for i in IMAGES[op]:
        exact[i] = exact[i].transpose(0, 3, 1, 2)
    results = list(OPS[op][1](*exact, kernel_size))
    for i in IMAGES[op]:
        results[i] = results[i].transpose(0, 2, 3, 1)
    return results


OPS = {
    "hidden": (
        hidden_arrays,
        expected_hidden,
        cuda_kernels.patchwise_hidden_forward,
        cuda_kernels.patchwise_hidden_backward,
    ),
    "core": (
        core_arrays,
        expected_core,
        cuda_kernels.patchwise_core_forward,
        cuda_kernels.patchwise_core_backward,
    ),
}


def options(op, kernel_size=3):
    """The keyword arguments of an op; core sees the footprint by itself."""
    return {"kernel_size": kernel_size} if op == "hidden" else {}


def run(op, kernel_size, grad, *inputs):
    """The output and all gradients."""
    _, _, forward, backward = OPS[op]
    output, *grads = (np.full_like(a, np.nan) for a in (grad, *inputs))
    forward(*inputs, output, **options(op, kernel_size))
    backward(grad, *inputs, *grads, **options(op, kernel_size))
    return output, *grads


@pytest.fixture(params=cuda_kernels.instruction_sets())
def instruction_set(request):
    cuda_kernels.use_instruction_set(request.param)
    yield request.param
    cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPS)
def test_equals_the_definition(instruction_set, op, shape, dtype):
    arrays = OPS[op][0](shape, dtype)
    exact = defined(op, arrays, shape[-1])
    for got, wanted in zip(run(op, shape[-1], *arrays), exact, strict=True):
        scale = np.abs(wanted).max() + 1
        np.testing.assert_allclose(
            got / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype]
        )


# Where all taps show it, and where only some do; in a band of several images,
# with a plane per tap, in several bands, and in lanes.
@pytest.mark.parametrize("place", [(1, 4, 5), (0, 0, 0), (-1, -1, -1)])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[6], SHAPES[7], SHAPES[13]])
@pytest.mark.parametrize(
    ("op", "argument"),
    [("hidden", 1), ("hidden", 2), ("core", 1), ("core", 2)],
    ids=["phi", "psi", "hidden", "value"],
)
def test_not_a_number_is_passed_on(instruction_set, op, argument, shape, place):
    arrays = OPS[op][0](shape)
    arrays[argument][..., -1][place] = np.nan
    exact = defined(op, arrays, shape[-1])
    for got, wanted in zip(run(op, shape[-1], *arrays), exact, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def spread(arrays, pitch):
    """The arrays as channels of one image of so many, one after another."""
    whole = np.full((*arrays[0].shape[:3], pitch), np.nan, arrays[0].dtype)
    parts, first = [], 1
    for array in arrays:
        part = whole[..., first : first + array.shape[3]]
        part[...] = array
        parts.append(part)
        first += array.shape[3]
    return whole, parts


@pytest.mark.parametrize("shape", SHAPES)
def test_images_may_be_channels_of_one(instruction_set, shape):
    """With the same bits; the other channels are neither used nor written."""
    for op, results in (("hidden", (1, 2)), ("core", (2,))):
        arrays = OPS[op][0](shape, "float32")
        expected = run(op, shape[-1], *arrays)
        pitch = sum(arrays[i].shape[3] for i in results) + 3
        _, parts = spread([arrays[i] for i in results], pitch)
        inputs = list(arrays[1:])
        for i, part in zip(results, parts, strict=True):
            inputs[i - 1] = part
        grads = [np.full_like(a, np.nan) for a in arrays[1:]]
        whole, parts = spread([grads[i - 1] for i in results], pitch)
        for i, part in zip(results, parts, strict=True):
            grads[i - 1] = part
        output = np.full_like(arrays[0], np.nan)
        OPS[op][2](*inputs, output, **options(op, shape[-1]))
        OPS[op][3](arrays[0], *inputs, *grads, **options(op, shape[-1]))
        for got, wanted in zip((output, *grads), expected, strict=True):
            assert got.tobytes() == wanted.tobytes()
        assert np.isnan(whole[..., [0, -2, -1]]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_half_types_are_computed_in_float32(instruction_set, shape):
    """Images are rounded, once; the hidden layer and parameters are float32."""
    for op, halves in (("hidden", (1, 2)), ("core", (0, 2))):
        arrays = OPS[op][0](shape, "float32")
        for i in halves:
            arrays[i] = arrays[i].astype("float16")
        expected = run(op, shape[-1], *(a.astype("float32") for a in arrays))
        results = run(op, shape[-1], *arrays)
        for got, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got, wanted.astype(got.dtype))


@pytest.mark.parametrize("op", OPS)
def test_no_images(op):
    arrays = OPS[op][0]((0, 4, 2, 16, 5, 7, 3))
    output, *grads = run(op, 3, *arrays)
    assert output.size == 0
    for grad in grads[-2:]:
        assert not grad.any()


def arguments(op, **changes):
    """Names and arrays of a forward call, some of them changed."""
    if op == "hidden":
        grad, *arrays = hidden_arrays((2, 4, 2, 16, 5, 7, 3))
        names = ("phi", "psi", "scale", "shift", "weight", "hidden")
    else:
        grad, *arrays = core_arrays((2, 4, 2, 16, 5, 7, 3))
        names = ("hidden", "value", "weight", "bias", "output")
    return dict(zip(names, (*arrays, grad), strict=True)) | changes


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("hidden", {"psi": 1}, "psi must be a tensor that exports DLPack"),
        (
            "hidden",
            {"psi": np.zeros((2, 5, 7, 4), "float32")},
            "phi must have the dtype of psi, float32, got float64",
        ),
        (
            "hidden",
            {"psi": np.zeros((2, 5, 7, 4), "float16")},
            "phi must have the dtype of psi, float16, got float64",
        ),
        (
            "core",
            {
                k: np.zeros((2, 5, 7, 16), "float16")
                for k in ("value", "output")
            },
            "hidden must be float32 where value is float16, got float64",
        ),
        (
            "core",
            {"value": np.zeros((2, 0, 7, 16))},
            "value must have a height and width from 1 to 2",
        ),
        (
            "hidden",
            {"phi": np.zeros((2, 5, 6, 4))},
            r"phi must have the shape of psi, \[2, 5, 7, 4\], got",
        ),
        (
            "hidden",
            {"phi": np.zeros((2, 4, 5, 7)).transpose(0, 2, 3, 1)},
            r"phi must be \[N, H, W, C\] with adjacent channels and pixels one "
            "distance apart, got shape",
        ),
        (
            "hidden",
            {"psi": np.zeros((2, 5, 8, 4))[:, :, :7]},
            r"psi must be \[N, H, W, C\] with adjacent channels and pixels one "
            "distance apart, got shape",
        ),
        (
            "hidden",
            {"kernel_size": 2},
            "kernel_size must be odd, from 1 to 127",
        ),
        ("hidden", {"kernel_size": -1}, "kernel_size must be odd, from 1 to 1"),
        ("hidden", {"kernel_size": 129}, "kernel_size must be odd, from 1 to"),
        (
            "hidden",
            {"weight": np.zeros((2, 36, 1, 1))},
            r"weight must have shape \[G, R \* \(k \* k \+ 1\), 1, 1\] = "
            r"\[2, 40, 1, 1\], got \[2, 36, 1, 1\]",
        ),
        (
            "hidden",
            {"weight": np.zeros((0, 40, 1, 1))},
            "weight must have at least one channel of each kind, got 0 from 4",
        ),
        (
            "hidden",
            {"scale": np.zeros((1, 4, 3, 3))},
            r"scale must have shape .* = \[1, 40, 1, 1\], got",
        ),
        (
            "hidden",
            {"shift": np.zeros((1, 4, 1, 1))},
            r"shift must have the shape of scale, \[1, 40, 1, 1\], got",
        ),
        (
            "hidden",
            {"hidden": np.zeros((2, 5, 6, 2))},
            r"hidden must have shape \[N, H, W, G\] = \[2, 5, 7, 2\], got",
        ),
        (
            "hidden",
            {"hidden": np.zeros((2, 5, 7, 3))[..., :2]},
            r"hidden must be dense and row-major \(contiguous\), got",
        ),
        (
            "core",
            {"weight": np.zeros((3, 3, 3, 3))},
            "weight must have a number of channels that divides value's, 16, "
            "got 3",
        ),
        (
            "core",
            {"weight": np.zeros((0, 3, 3, 0))},
            "weight must have a number of channels that divides value's, 16, "
            "got 0",
        ),
        (
            "core",
            {"weight": np.zeros((2, 3, 3, 1))},
            r"weight must have shape \[G, k, k, G\] = \[2, 3, 3, 2\], got",
        ),
        (
            "core",
            {"bias": np.zeros((1, 2, 3, 1))},
            r"bias must have shape \[1, G, k, k\] = \[1, 2, 3, 3\], got",
        ),
        (
            "core",
            {"hidden": np.zeros((2, 5, 7, 4))},
            r"hidden must have shape \[N, H, W, G\] = \[2, 5, 7, 2\], got",
        ),
        (
            "core",
            {"output": np.zeros((2, 7, 5, 16))},
            "output must have the shape of value",
        ),
    ],
)
def test_errors(op, changes, message):
    forward = getattr(cuda_kernels, f"patchwise_{op}_forward")
    with pytest.raises(ValueError, match=f"^patchwise_{op}_forward: {message}"):
        forward(**options(op) | arguments(op, **changes))


@pytest.mark.parametrize("op", OPS)
def test_outputs_may_not_share_memory(op):
    calls = arguments(op)
    name = list(calls)[-1]
    source = "psi" if op == "hidden" else "value"
    shape = calls[name].shape
    calls[name] = calls[source].reshape(-1)[: calls[name].size].reshape(shape)
    forward = getattr(cuda_kernels, f"patchwise_{op}_forward")
    with pytest.raises(ValueError, match=f"{name} must not share memory with"):
        forward(**calls, **options(op))


@pytest.mark.parametrize(
    ("op", "which"),
    [("hidden", i) for i in range(5)] + [("core", i) for i in range(4)],
)
def test_each_gradient_is_checked(op, which):
    grad, *inputs = OPS[op][0]((2, 4, 2, 16, 5, 7, 3))
    grads = [np.zeros_like(a) for a in inputs]
    grads[which] = np.zeros((1, 1, 1, 1))
    with pytest.raises(ValueError, match="must have the shape of"):
        OPS[op][3](grad, *inputs, *grads, **options(op))
    grads[which] = inputs[which]
    with pytest.raises(ValueError, match="must not share memory with"):
        OPS[op][3](grad, *inputs, *grads, **options(op))
