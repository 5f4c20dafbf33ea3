"""The kernels of fused pairwise attention, with NumPy alone."""

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.cases import pairwise_inputs, random_arrays

# R, G, M: whole and partial vectors of each instruction set, groups that
# divide a vector, that a vector divides, and neither; wider than a buffer row.
CHANNELS = [
    (1, 1, 1),
    (4, 2, 16),
    (6, 3, 24),
    (7, 5, 10),
    (16, 8, 64),
    (20, 12, 24),
    (32, 16, 48),
    (33, 32, 32),
    (140, 40, 80),
]
# N, H, W, footprint.
IMAGES = [
    (1, 1, 1, 3),
    (2, 2, 3, 7),
    (1, 9, 11, 5),
    (2, 5, 4, 1),
    (1, 3, 20, 3),
]
# Several bands of rows and strips of pixels, each with a rest.
WIDE = (2, 9, 31, 7)


@pytest.fixture(params=cuda_kernels.instruction_sets())
def instruction_set(request):
    cuda_kernels.use_instruction_set(request.param)
    yield
    cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


def mirror(size, kernel_size):
    """The pixel that each tap of each output shows: [size, kernel_size]."""
    reach = kernel_size // 2
    padded = np.pad(np.arange(size), reach, mode="reflect")
    return np.stack([padded[i : i + size] for i in range(kernel_size)], 1)


def taps(shape):
    """Pixel index and offset of each tap of each pixel: [P, K] each."""
    _, height, width, kernel_size = shape
    reach = kernel_size // 2
    rows, columns = mirror(height, kernel_size), mirror(width, kernel_size)
    pixel = rows[:, None, :, None] * width + columns[None, :, None, :]
    down = rows - np.arange(height)[:, None] + reach
    right = columns - np.arange(width)[:, None] + reach
    offset = down[:, None, :, None] * kernel_size + right[None, :, None, :]
    return (a.reshape(height * width, -1) for a in (pixel, offset))


def relation_of(inputs, image):
    """a of the definition: [N, P, K, R]."""
    features, scale, shift = inputs[:3]
    relation = scale.size
    pixels = features.reshape(len(features), -1, features.shape[3])
    pixel, _ = taps(image)
    phi = pixels[:, :, None, :relation]
    psi = pixels[:, pixel, relation : 2 * relation]
    return np.maximum(scale[0, 0, 0] * (phi - psi) + shift[0, 0, 0], 0)


def expected_output(inputs, image):
    """The definition, tap by tap."""
    return expected_attention(inputs, image)[0]


def expected_attention(inputs, image):
    """The output and the logarithms of the softmax's denominators."""
    features, scale, _, table, w1, w2 = inputs
    pixel, offset = taps(image)
    a = relation_of(inputs, image)
    z = np.maximum(a @ w1[0, 0].T + table[0, 0][offset], 0)
    logits = z @ w2[0, 0].T
    top = logits.max(2, keepdims=True)
    weights = np.exp(logits - top)
    total = weights.sum(2, keepdims=True)
    weights /= total
    value = features.reshape(len(features), -1, features.shape[3])
    value = value[:, pixel, 2 * scale.size :]
    repeats = value.shape[3] // w2.shape[2]
    output = (np.tile(weights, repeats) * value).sum(2)
    log_sum_exp = top + np.log(total)
    return [x.reshape(*features.shape[:3], -1) for x in (output, log_sum_exp)]


@pytest.mark.parametrize("image", [*IMAGES, WIDE])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)]
)
def test_forward(instruction_set, channels, image, dtype, tolerance):
    inputs = pairwise_inputs(channels, image, dtype)
    expected = expected_attention([x.astype("float64") for x in inputs], image)
    results = [np.full(x.shape, np.nan, dtype) for x in expected]
    cuda_kernels.pairwise_forward(*inputs, *results, kernel_size=image[3])
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, tolerance, tolerance)
    alone = np.empty_like(results[0])
    cuda_kernels.pairwise_forward(*inputs, alone, None, kernel_size=image[3])
    np.testing.assert_array_equal(alone, results[0])


@pytest.mark.parametrize("width", [5, 16])
def test_large_logits_do_not_overflow(instruction_set, width):
    image = (1, 4, width, 3)
    inputs = pairwise_inputs((4, 2, 4), image, "float32")
    inputs[5] *= 1e4
    expected = expected_attention([x.astype("float64") for x in inputs], image)
    results = [np.empty(x.shape, "float32") for x in expected]
    cuda_kernels.pairwise_forward(*inputs, *results, kernel_size=3)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, 1e-6, 1e-3)


@pytest.mark.parametrize(
    ("channel", "seen_by"),
    [(0, [3]), (5, [2, 3, 4]), (8, [2, 3, 4])],
    ids=["phi", "psi", "beta"],
)
@pytest.mark.parametrize("width", [7, 16])
def test_not_a_number_is_passed_on(instruction_set, width, channel, seen_by):
    inputs = pairwise_inputs((4, 2, 4), (1, 1, width, 3), "float32")
    inputs[0][0, 0, 3, channel] = np.nan
    output = np.empty((1, 1, width, 4), "float32")
    log_sum_exp = np.empty((1, 1, width, 2), "float32")
    cuda_kernels.pairwise_forward(*inputs, output, log_sum_exp, kernel_size=3)
    spoilt = np.isnan(output[0, 0]).any(1)
    assert np.flatnonzero(spoilt).tolist() == seen_by
    spoilt = np.flatnonzero(np.isnan(log_sum_exp[0, 0]).all(1)).tolist()
    assert spoilt == ([] if channel == 8 else seen_by)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_moments(instruction_set, channels, image):
    inputs = pairwise_inputs(channels, image)
    features, scale, shift = inputs[:3]
    (centre,) = random_arrays(scale.shape)
    relation, taps_of_kernel = scale.size, image[3] ** 2
    first = np.empty((1, 1, taps_of_kernel, relation))
    second = np.empty((1, 1, relation, relation))
    cuda_kernels.pairwise_moments(
        features, scale, shift, centre, first, second, kernel_size=image[3]
    )
    a = relation_of(inputs, image) - centre[0, 0, 0]
    _, offset = taps(image)
    expected = np.zeros_like(first[0, 0])
    np.add.at(expected, offset, a.sum(0))
    np.testing.assert_allclose(first[0, 0], expected, 1e-11, 1e-11)
    flat = a.reshape(-1, relation)
    np.testing.assert_allclose(second[0, 0], flat.T @ flat, 1e-11, 1e-11)


@pytest.mark.parametrize("image", IMAGES)
def test_difference(instruction_set, image):
    features, scale, *_ = pairwise_inputs((6, 3, 24), image)
    centre, level = random_arrays(scale.shape, scale.shape)
    first, second = np.empty(scale.shape), np.empty(scale.shape)
    cuda_kernels.pairwise_difference(
        features, centre, level, first, second, kernel_size=image[3]
    )
    pixels = features.reshape(len(features), -1, features.shape[3])
    pixel, _ = taps(image)
    d = pixels[:, :, None, :6] - pixels[:, pixel, 6:12] - centre[0, 0, 0]
    np.testing.assert_allclose(first[0, 0, 0], d.sum((0, 1, 2)), 1e-11, 1e-11)
    np.testing.assert_allclose(second[0, 0, 0], (d * d).sum((0, 1, 2)), 1e-11)


def derivative(function, arrays, directions, step=1e-6):
    """Of function(*arrays) along the directions."""
    ahead = function(
        *(a + step * d for a, d in zip(arrays, directions, strict=True))
    )
    behind = function(
        *(a - step * d for a, d in zip(arrays, directions, strict=True))
    )
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_backward_is_the_derivative_of_the_definition(
    instruction_set, channels, image
):
    inputs = pairwise_inputs(channels, image)
    shape = (*inputs[0].shape[:3], channels[2])
    *directions, seeds = random_arrays(*(x.shape for x in inputs), shape)
    grads = [np.full_like(x, np.nan) for x in inputs]
    cuda_kernels.pairwise_backward(
        seeds,
        *expected_attention(inputs, image),
        *inputs,
        *grads,
        kernel_size=image[3],
    )
    got = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    expected = derivative(
        lambda *x: (expected_output(x, image) * seeds).sum(), inputs, directions
    )
    scale = max(
        1.0,
        *(np.abs(g * d).sum() for g, d in zip(grads, directions, strict=True)),
    )
    assert abs(got - expected) < 1e-5 * scale


def arguments(op):
    """Sound arguments of a function, by name."""
    features, scale, shift, table, w1, w2 = pairwise_inputs(
        (4, 2, 4), (1, 3, 5, 3)
    )
    mapping = {
        "scale": scale,
        "shift": shift,
        "table": table,
        "w1": w1,
        "w2": w2,
    }
    image = {"features": features}
    output = np.empty((1, 3, 5, 4))
    attended = {"output": output.copy(), "log_sum_exp": np.empty((1, 3, 5, 2))}
    grads = {f"grad_{k}": v.copy() for k, v in (image | mapping).items()}
    pair = {"scale": scale, "shift": shift}
    sums = {"first": table.copy(), "second": w1.copy()}
    return {
        "pairwise_forward": image | mapping | attended,
        "pairwise_backward": {"grad_output": output}
        | attended
        | image
        | mapping
        | grads,
        "pairwise_difference": image
        | {"centre": scale, "level": shift}
        | {"first": scale.copy(), "second": scale.copy()},
        "pairwise_difference_backward": image
        | {"constant": scale, "slope": shift, "grad_features": features.copy()},
        "pairwise_moments": image | pair | {"centre": scale.copy()} | sums,
        "pairwise_moments_backward": {f"grad_{k}": v for k, v in sums.items()}
        | image
        | pair
        | {k: grads[k] for k in ("grad_features", "grad_scale", "grad_shift")},
    }[op]


OPS = [
    "pairwise_forward",
    "pairwise_backward",
    "pairwise_difference",
    "pairwise_difference_backward",
    "pairwise_moments",
    "pairwise_moments_backward",
]


def wrong_arguments():
    for op in OPS:
        for name, value in arguments(op).items():
            yield op, {name: value[..., :0].copy()}, "must have"
            yield op, {name: value[0]}, f"{name} must have 4 dimensions"
            yield op, {name: np.zeros(value.shape, "float16")}, "must"
            yield op, {name: value.tolist()}, f"{name} must be a tensor"
        yield op, {"features": np.zeros((1, 0, 5, 12))}, "height and width"
        yield op, {"kernel_size": 2}, "kernel_size must be odd, got 2"
        yield op, {"kernel_size": 0}, "kernel_size must be an integer from 1"


@pytest.mark.parametrize(("op", "change", "message"), list(wrong_arguments()))
def test_errors(op, change, message):
    kept = {"kernel_size": 3} | arguments(op) | change
    with pytest.raises(ValueError, match=f"^{op}: .*{message}"):
        getattr(cuda_kernels, op)(**kept)


@pytest.mark.parametrize("op", OPS)
def test_outputs_share_no_memory(op):
    known = arguments(op)
    written = {"output", "log_sum_exp", "first", "second"}
    if op.endswith("backward"):
        read = {"grad_output", "grad_first", "grad_second"}
        written = {n for n in known if n.startswith("grad_")} - read
    for name in written & known.keys():
        for other in known.keys() - {name}:
            kept = dict(known)
            pool = np.zeros(max(kept[name].size, kept[other].size))
            for shared in (name, other):
                part = pool[: kept[shared].size]
                kept[shared] = part.reshape(kept[shared].shape)
            with pytest.raises(ValueError, match="must not share memory with"):
                getattr(cuda_kernels, op)(**kept, kernel_size=3)


def test_features_must_fit_the_groups():
    known = arguments("pairwise_forward")
    known["features"] = np.zeros((1, 3, 5, 13))
    with pytest.raises(ValueError, match="w2 must have a number of rows that"):
        cuda_kernels.pairwise_forward(**known, kernel_size=3)
