"""The fused pairwise attention on CUDA, run thread by thread, against the CPU.

The kernels of the CPU are held against the definition in
tests/kernels/fused_pairwise_test.py; these compute the same from the same
arguments.
"""

import numpy as np
import pytest

import cuda_kernels
from tests.emulated_cuda import kernels
from tests.kernels.cases import pairwise_inputs, random_arrays

# R, G, M and N, H, W, footprint: channels that fill whole vectors and such
# that do not, G above R, weights too large for shared memory; images smaller
# than the footprint, tiles over several images, a partial last tile, several
# chunks of taps, a footprint of one tap.
CASES = [
    ((1, 1, 1), (1, 1, 1, 3)),
    ((4, 2, 16), (2, 5, 9, 3)),
    ((6, 3, 24), (2, 2, 3, 7)),
    ((7, 5, 10), (1, 9, 11, 5)),
    ((16, 8, 64), (3, 3, 5, 7)),
    ((20, 12, 24), (2, 5, 4, 1)),
    ((3, 16, 48), (1, 3, 20, 3)),
    ((33, 32, 32), (1, 1, 6, 11)),
    ((4, 2, 8), (1, 15, 13, 3)),
    ((140, 40, 80), (1, 2, 3, 3)),
    # Published sizes, whose kernels know them: in float32 on tensor cores.
    ((4, 2, 16), (1, 17, 15, 7)),
    ((16, 8, 64), (2, 9, 7, 7)),
    ((16, 8, 64), (1, 8, 9, 3)),
    ((32, 16, 128), (1, 6, 9, 7)),
    ((64, 32, 256), (2, 5, 4, 7)),
    ((128, 64, 512), (1, 5, 4, 3)),
    # Images that a footprint reaches over on both sides, and no smaller ones.
    ((4, 2, 16), (3, 2, 2, 3)),
    ((16, 8, 64), (3, 4, 4, 7)),
    ((32, 16, 128), (2, 3, 5, 5)),
]
# With 140 channels w1 and w2 fit shared memory in float32 only.
TOLERANCES = {"float64": 1e-12, "float32": 2e-5}
TYPES = pytest.mark.parametrize("dtype", TOLERANCES)


def calls(channels, image, dtype="float64"):
    """The arguments of each function: what it reads, and what it writes."""
    inputs = pairwise_inputs(channels, image, dtype)
    features, scale, shift, table, w1, _ = inputs
    attended = [
        np.zeros((*image[:3], width), dtype) for width in channels[2:0:-1]
    ]
    cuda_kernels.pairwise_forward(*inputs, *attended, kernel_size=image[3])
    output = attended[0].shape
    seeds, first, second, centre = random_arrays(
        output, table.shape, w1.shape, scale.shape, dtype=dtype
    )
    second += second.transpose(0, 1, 3, 2)
    sums = [np.empty(x.shape) for x in (table, w1)]
    vectors = [np.empty(scale.shape) for _ in range(2)]
    like = np.zeros_like
    return {
        "pairwise_forward": (inputs, [*map(like, attended)]),
        "pairwise_backward": (
            [seeds, *attended, *inputs],
            [*map(like, inputs)],
        ),
        "pairwise_difference": ([features, centre, shift], vectors),
        "pairwise_difference_backward": (
            [features, scale, shift],
            [like(features)],
        ),
        "pairwise_moments": ([features, scale, shift, centre], sums),
        "pairwise_moments_backward": (
            [first, second, features, scale, shift],
            [like(features), like(scale), like(shift)],
        ),
    }


OPS = list(calls((1, 1, 1), (1, 1, 1, 1)))


def workspace(op, inputs, channels, image):
    """The keyword of the workspace, full of NaN, where there is one."""
    if op in ("pairwise_forward", "pairwise_difference_backward"):
        return {}
    wide = 2 * channels[0] + channels[2]
    (features,) = (x for x in inputs if x.shape == (*image[:3], wide))
    elements = kernels.pairwise_workspace(
        op, features, channels[0], channels[1], kernel_size=image[3]
    )
    return {"workspace": np.full((1, 1, 1, elements), np.nan)}


def run(module, op, arguments, channels, image):
    """The results of one function."""
    inputs, outputs = arguments
    outputs = [np.full_like(x, np.nan) for x in outputs]
    more = {}
    if module is kernels:
        more = workspace(op, inputs, channels, image)
    getattr(module, op)(*inputs, *outputs, kernel_size=image[3], **more)
    return outputs


def assert_close(results, expected, tolerance):
    for result, value in zip(results, expected, strict=True):
        atol = tolerance * (1 + np.nanmax(np.abs(value), initial=0))
        np.testing.assert_allclose(result, value, rtol=0, atol=atol)


@TYPES
@pytest.mark.parametrize(("channels", "image"), CASES)
@pytest.mark.parametrize("op", OPS)
def test_is_that_of_the_cpu(op, channels, image, dtype):
    arguments = calls(channels, image, dtype)[op]
    results = run(kernels, op, arguments, channels, image)
    exact = calls(channels, image)[op]
    exact[0][:] = [x.astype("float64") for x in arguments[0]]
    expected = run(cuda_kernels, op, exact, channels, image)
    assert_close(results, expected, TOLERANCES[dtype])


# Not on tensor cores, whose sums have no order that anybody specifies.
@pytest.mark.parametrize("channels", [(7, 5, 10), (4, 2, 16)])
@pytest.mark.parametrize("op", OPS)
def test_same_bits_in_every_order(op, channels, monkeypatch):
    image = (2, 5, 4, 5)
    arguments = calls(channels, image, "float32")[op]
    results = []
    for order in ("ascending", "descending", "ascending"):
        monkeypatch.setenv("EMULATED_CUDA_ORDER", order)
        results.append(run(kernels, op, arguments, channels, image))
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


@pytest.mark.parametrize("op", ["pairwise_difference", "pairwise_moments"])
def test_blocks_go_on_to_further_tiles(op):
    channels, image = (1, 1, 1), (1, 130, 130, 7)
    arguments = calls(channels, image)[op]
    results = run(kernels, op, arguments, channels, image)
    expected = run(cuda_kernels, op, arguments, channels, image)
    assert_close(results, expected, 1e-12)


@pytest.mark.parametrize("op", OPS)
def test_half_types_are_computed_in_float32(op):
    channels, image = (6, 3, 24), (1, 5, 4, 3)
    arguments = calls(channels, image, "float32")[op]
    images = (*image[:3], 2 * 6 + 24), (*image[:3], 24)
    half, same = (
        [
            [x.astype(dtype) if x.shape in images else x for x in side]
            for side in arguments
        ]
        for dtype in ("float16", "float32")
    )
    same[0] = [x.astype("float32") for x in half[0]]
    results = run(kernels, op, half, channels, image)
    expected = run(kernels, op, same, channels, image)
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, value.astype(result.dtype))


@pytest.mark.parametrize("op", OPS)
def test_no_images(op):
    channels, image = (4, 2, 8), (0, 3, 4, 3)
    arguments = calls(channels, image)[op]
    for result in run(kernels, op, arguments, channels, image):
        assert not result.any()


@pytest.mark.parametrize("value", [4, 16])
def test_large_logits_do_not_overflow(value):
    channels, image = (4, 2, value), (1, 4, 5, 3)
    arguments = calls(channels, image, "float32")["pairwise_forward"]
    arguments[0][5] *= 1e4
    results = run(kernels, "pairwise_forward", arguments, channels, image)
    arguments[0][:] = [x.astype("float64") for x in arguments[0]]
    exact = calls(channels, image)["pairwise_forward"][1]
    expected = run(
        cuda_kernels,
        "pairwise_forward",
        (arguments[0], exact),
        channels,
        image,
    )
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, 1e-6, 1e-3)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("channel", [0, 5, 8], ids=["phi", "psi", "beta"])
@pytest.mark.parametrize(("value", "dtype"), [(4, "float64"), (16, "float32")])
@pytest.mark.parametrize("op", OPS)
def test_not_a_number_is_passed_on(op, value, dtype, channel, kernel_size):
    channels, image = (4, 2, value), (1, 2, 7, kernel_size)
    arguments = calls(channels, image, dtype)[op]
    for array in arguments[0]:
        if array.shape == (1, 2, 7, 8 + value):
            array[0, 1, 3, channel] = np.nan
    results = run(kernels, op, arguments, channels, image)
    expected = run(cuda_kernels, op, arguments, channels, image)
    assert_close(results, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("op", OPS)
def test_published_sizes_in_memory_that_begins_anywhere(op):
    channels, image = (4, 2, 16), (1, 5, 4, 3)
    inputs, outputs = calls(channels, image, "float32")[op]
    moved = [
        np.append(np.float32(0), x).astype(x.dtype)[1:].reshape(x.shape)
        for x in inputs
    ]
    assert {x.ctypes.data % 16 for x in moved} != {0}
    more = workspace(op, inputs, channels, image)
    results = [np.full_like(x, np.nan) for x in outputs]
    # Not in guarded memory, where tensors of such sizes begin on 16 bytes.
    getattr(kernels._module, op)(*moved, *results, kernel_size=3, **more)
    expected = run(cuda_kernels, op, (inputs, outputs), channels, image)
    assert_close(results, expected, TOLERANCES["float32"])


@pytest.mark.parametrize(
    ("workspace", "message"),
    [
        (None, "workspace must be a tensor"),
        (
            np.empty((1, 1, 1, 5)),
            r"must have shape .1, 1, 1, n. with n of at least",
        ),
        (np.empty((1, 1, 1, 5), "float32"), "must be float64 where features"),
    ],
)
def test_workspace_errors(workspace, message):
    inputs, outputs = calls((4, 2, 8), (1, 3, 4, 3))["pairwise_backward"]
    with pytest.raises(ValueError, match=f"^pairwise_backward: .*{message}"):
        kernels.pairwise_backward(
            *inputs, *outputs, kernel_size=3, workspace=workspace
        )


def test_too_many_channels_for_a_block(monkeypatch):
    monkeypatch.setenv("EMULATED_CUDA_SHARED_BYTES", "4096")
    channels, image = (100, 1, 1), (1, 1, 1, 1)
    arguments = calls(channels, image)["pairwise_forward"]
    with pytest.raises(ValueError, match="channels must leave room in a"):
        run(kernels, "pairwise_forward", arguments, channels, image)


@pytest.mark.parametrize("outlier", [0, 1, 60])
@pytest.mark.parametrize("side", ["phi", "psi"])
def test_differences_bear_an_outlying_pixel(side, outlier):
    """And means that are far from zero, for squares lose digits in both."""
    image = (2, 6, 7, 3)
    features = random_arrays((*image[:3], 9), dtype="float32")[0] + 1000
    first = 0 if side == "phi" else 4
    features.reshape(-1, 9)[outlier, first : first + 4] = 1e5
    means = features.mean((0, 1, 2), dtype="float32").reshape(1, 1, 1, 9)
    level = means[..., 4:8].copy()
    centre = means[..., :4] - level
    sums = [np.zeros((1, 1, 1, 4)) for _ in range(2)]
    arguments = [features, centre, level], sums
    results = run(kernels, "pairwise_difference", arguments, (4, 1, 1), image)
    phi, psi = features[..., :4].astype(float), features[..., 4:8].astype(float)
    padded = np.pad(psi, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    d = phi[..., None, None] - seen
    d -= centre.reshape(4, 1, 1)
    expected = [x.sum((0, 1, 2, 4, 5)) for x in (d, d * d)]
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result[0, 0, 0], value, 1e-11)
