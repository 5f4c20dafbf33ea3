"""The pairwise attention on tensor cores, emulated, against the CPU.

What tensor cores multiply is rounded: a, z, w1 and w2. Where all of these are
small whole numbers nothing is lost, and only the result is rounded. float32 is
multiplied as the sum of three bfloat16, which loses nothing, unless TF32 is
allowed. Two weight channels have a forward without tensor cores.
"""

import numpy as np
import pytest
import torch

import cuda_kernels
from san.ops import pairwise_core
from tests.emulated_cuda import _kernels, kernels
from tests.kernels.cases import pairwise_inputs

# The published G; R is twice, M eight times as large.
GROUPS = (2, 8, 16, 32, 64)
# N, H, W, footprint: images smaller than the footprint and than a tile, images
# of several tiles that do not fill them.
IMAGES = [(1, 4, 5, 7), (1, 2, 3, 3), (2, 5, 9, 3), (1, 11, 10, 7)]
# Of the largest value. Rounding to 8 or 11 bits is off by up to 2^-8 or 2^-11
# of a value, in either direction; logits, sums of products of such values, by
# about as much, and so the logarithms and the weights.
TYPES = {
    torch.bfloat16: 1.5e-2,
    torch.float16: 2e-3,
    torch.float32: 2e-3,  # TF32, whose 11 bits are those of float16
}
# Of a result that is rounded once, and of the logarithm and exponential.
EXACT = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 0}
EXACT_FLOAT = 2e-5
of_types = pytest.mark.parametrize("dtype", TYPES, ids=str)
of_groups = pytest.mark.parametrize("groups", GROUPS)


def is_dear(groups, image):
    """To emulate: the largest image where there are many channels."""
    return groups >= 32 and image[1] > 5


SIZES = [
    (groups, image if not is_dear(groups, image) else (1, 7, 10, 5))
    for groups in GROUPS
    for image in IMAGES
]
of_sizes = pytest.mark.parametrize(
    ("groups", "image"),
    [size for size in SIZES if not is_dear(*size)],
    ids=str,
)
# Of float16, which is multiplied as bfloat16 is, one image.
of_all = pytest.mark.parametrize(
    ("groups", "image", "dtype"),
    [
        (*size, dtype)
        for size in SIZES
        for dtype in TYPES
        if dtype == torch.bfloat16
        or (dtype == torch.float16 and size[1] == IMAGES[2])
        or (dtype == torch.float32 and not is_dear(*size))
    ],
    ids=str,
)


def inputs_of(groups, image, dtype):
    channels = (2 * groups, groups, 8 * groups)
    features, *mapping = map(
        torch.from_numpy, pairwise_inputs(channels, image, "float32")
    )
    return [features.to(dtype), *mapping]


def whole_numbers(groups, image, dtype):
    """Inputs whose relation, hidden layer and weights are small integers."""
    generator = np.random.default_rng(groups)
    batch, height, width, k = image
    relation, channels = 2 * groups, 12 * groups

    def integers(*shape, least=-3, most=3):
        values = generator.integers(least, most + 1, shape).astype("float32")
        return torch.from_numpy(values)

    features = integers(batch, height, width, channels)
    # Three weights a row, so that sums stay below 256.
    order = generator.random((1, 1, 3 * groups, relation)).argsort(-1)
    w1, w2 = (
        integers(1, 1, 3 * groups, relation) * torch.from_numpy(order < 3)
    ).split([relation, groups], 2)
    return [
        features.to(dtype),
        integers(1, 1, 1, relation, least=1, most=2),
        integers(1, 1, 1, relation),
        integers(1, 1, k * k, relation),
        w1.contiguous(),
        w2.contiguous(),
    ]


def attend(module, inputs, image, **options):
    features, *_, w2 = inputs
    shape, groups = features.shape[:3], w2.shape[2]
    like = torch.full_like
    output = like(features[..., : 8 * groups].contiguous(), torch.nan)
    log_sum_exp = torch.full((*shape, groups), torch.nan, dtype=w2.dtype)
    module.pairwise_forward(
        *inputs, output, log_sum_exp, kernel_size=image[3], **options
    )
    return output, log_sum_exp


def on_tensor_cores(inputs, image):
    return attend(kernels, inputs, image, allow_tf32=True)


def on_cpu(inputs, image):
    return attend(cuda_kernels, [x.double() for x in inputs], image)


def assert_close(results, expected, tolerance, relative=0.0):
    for result, value in zip(results, expected, strict=True):
        largest = value.abs().nan_to_num(0).max().item()
        torch.testing.assert_close(
            result.double(),
            value,
            rtol=relative if result.dtype != torch.float32 else 0,
            atol=tolerance * (1 + largest),
            equal_nan=True,
        )


@of_all
def test_is_that_of_the_cpu(groups, image, dtype):
    inputs = inputs_of(groups, image, dtype)
    results = on_tensor_cores(inputs, image)
    assert_close(results, on_cpu(inputs, image), TYPES[dtype])


@of_all
def test_whole_numbers_are_exact(groups, image, dtype):
    inputs = whole_numbers(groups, image, dtype)
    results = on_tensor_cores(inputs, image)
    assert_close(results, on_cpu(inputs, image), EXACT_FLOAT, EXACT[dtype])


@of_types
def test_large_logits_do_not_overflow(dtype):
    image = (1, 4, 5, 3)
    inputs = whole_numbers(8, image, dtype)
    inputs[5] *= 64
    results = on_tensor_cores(inputs, image)
    expected = on_cpu(inputs, image)
    assert expected[1].abs().max() > 1000
    assert_close(results, expected, EXACT_FLOAT, EXACT[dtype])


@of_types
@pytest.mark.parametrize("groups", [2, 16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("part", ["phi", "psi", "beta"])
def test_what_is_not_finite_is_passed_on(part, value, groups, dtype):
    """To the pixels that see it, mirrored or not, and to no other."""
    image = (1, 4, 11, 3)
    channel = {"phi": 1, "psi": 2 * groups + 1, "beta": 4 * groups + 3}[part]
    inputs = whole_numbers(groups, image, dtype)
    # Of psi the one whose relation is not simply 0.
    inputs[0][0, 1, 3, channel] = -value if part == "psi" else value
    results = on_tensor_cores(inputs, image)
    for result, wanted in zip(results, on_cpu(inputs, image), strict=True):
        assert torch.equal(result.isnan(), wanted.isnan())
        assert torch.equal(result.isinf(), wanted.isinf())


@of_types
def test_two_runs_give_the_same_bits(dtype):
    image = (2, 5, 9, 3)
    inputs = inputs_of(16, image, dtype)
    first, second = (on_tensor_cores(inputs, image) for _ in range(2))
    assert all(map(torch.equal, first, second))


@of_sizes
def test_float32_is_exact(groups, image):
    inputs = inputs_of(groups, image, torch.float32)
    results = attend(kernels, inputs, image)
    assert_close(results, on_cpu(inputs, image), 2e-6)


@pytest.mark.parametrize("groups", GROUPS[1:])
def test_float32_stays_exact_unless_tf32_is_allowed(groups):
    image = (1, 3, 4, 3)
    inputs = inputs_of(groups, image, torch.float32)
    results = attend(kernels, inputs, image)
    assert not torch.equal(results[0], on_tensor_cores(inputs, image)[0])


@pytest.fixture(params=["tf32", "ieee"])
def precision(request):
    """torch's switch for products of matrices in float32."""
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, request.param
    yield request.param
    matmul.fp32_precision = before


def test_torch_decides_about_tf32(precision, monkeypatch):
    monkeypatch.setattr(pairwise_core, "cuda_kernels", kernels)
    image = (1, 3, 4, 3)
    features, *mapping = inputs_of(8, image, torch.float32)
    output = torch.ops.san.pairwise_core(
        features.permute(0, 3, 1, 2),
        *(x.flatten() for x in mapping[:2]),
        *(x.flatten(0, 2) for x in mapping[2:]),
        3,
    )
    expected, _ = attend(
        kernels, [features, *mapping], image, allow_tf32=precision == "tf32"
    )
    assert torch.equal(output.permute(0, 2, 3, 1), expected)


def test_without_the_logarithms():
    image = (2, 5, 9, 3)
    inputs = inputs_of(8, image, torch.bfloat16)
    output, _ = on_tensor_cores(inputs, image)
    alone = torch.full_like(output, torch.nan)
    kernels.pairwise_forward(*inputs, alone, None, kernel_size=3)
    assert torch.equal(alone, output)


def test_what_does_not_fit_is_computed_in_float32(monkeypatch):
    """Too little shared memory, images of less than half a footprint, other
    sizes, odd addresses: the same bits."""
    monkeypatch.setenv("EMULATED_CUDA_SHARED_BYTES", str(99 * 1024))
    image = (1, 5, 6, 7)
    assert_stays_exact(kernels, inputs_of(64, image, torch.float32), image)
    image = (2, 3, 10, 7)
    assert_stays_exact(kernels, inputs_of(8, image, torch.float32), image)
    image = (1, 3, 4, 3)
    features, *mapping = inputs_of(8, image, torch.float32)
    longer = torch.cat([features, features[..., -8:]], -1)
    assert_stays_exact(kernels, [longer, *mapping], image)
    odd = torch.empty(features.numel() + 1)[1:].view_as(features)
    assert_stays_exact(_kernels, [odd.copy_(features), *mapping], image)


def assert_stays_exact(module, inputs, image):
    features, *_, w2 = inputs
    channels = features.shape[3] - 2 * w2.shape[3]
    results = []
    for allow_tf32 in (False, True):
        output = torch.full((*features.shape[:3], channels), torch.nan)
        module.pairwise_forward(
            *inputs, output, None, kernel_size=image[3], allow_tf32=allow_tf32
        )
        results.append(output)
    assert torch.equal(*results)


# ---- Backward. Of the largest value of each gradient: beside the forward's
# factors those of the way back are rounded, and the output; and the terms of
# what is summed over all pairs cancel.
GRADIENTS = {torch.bfloat16: 8e-2, torch.float16: 1e-2, torch.float32: 1e-5}
NAMES = ("features", "scale", "shift", "table", "w1", "w2")


def gradients(module, inputs, image, seeds, forward):
    """Those of the inputs, by name."""
    features, *_, w2 = inputs
    groups, relation = w2.shape[2:]
    grads = [torch.full_like(x, torch.nan) for x in inputs]
    more = {}
    if module is not cuda_kernels:
        elements = module.pairwise_workspace(
            "pairwise_backward",
            features,
            relation,
            groups,
            kernel_size=image[3],
        )
        memory = torch.full((1, 1, 1, elements), torch.nan)
        more = {"workspace": memory.double()}
    module.pairwise_backward(
        seeds, *forward, *inputs, *grads, kernel_size=image[3], **more
    )
    return dict(zip(NAMES, grads, strict=True))


def seeds_like(output):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(output.shape, generator=generator).to(output.dtype)


def backward_both(inputs, image):
    """By the emulated kernels, and by the CPU in float64."""
    # Softmaxes with one weight of 1 and none else have no gradient but that of
    # the output's rounding.
    inputs[5] /= 8
    forward = attend(kernels, inputs, image)
    seeds = seeds_like(forward[0])
    found = gradients(kernels, inputs, image, seeds, forward)
    exact = [x.double() for x in inputs]
    wanted = gradients(
        cuda_kernels, exact, image, seeds.double(), on_cpu(inputs, image)
    )
    return found, wanted


@of_all
def test_gradients_are_those_of_the_cpu(groups, image, dtype):
    inputs = whole_numbers(groups, image, dtype)
    assert_gradients_close(inputs, image, GRADIENTS[dtype])


@pytest.mark.parametrize("part", ["phi", "psi", "beta"])
def test_not_a_number_is_passed_back(part):
    image, groups = (1, 4, 11, 3), 8
    channel = {"phi": 1, "psi": 2 * groups + 1, "beta": 4 * groups + 3}[part]
    inputs = whole_numbers(groups, image, torch.bfloat16)
    inputs[0][0, 1, 3, channel] = torch.nan
    found, wanted = backward_both(inputs, image)
    for name in NAMES:
        assert torch.equal(found[name].isnan(), wanted[name].isnan()), name


@pytest.mark.parametrize("groups", [2, 16])
def test_gradients_have_the_same_bits_in_two_runs(groups):
    image = (2, 5, 9, 3)
    inputs = inputs_of(groups, image, torch.float16)
    forward = on_tensor_cores(inputs, image)
    seeds = seeds_like(forward[0])
    first, second = (
        gradients(kernels, inputs, image, seeds, forward) for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in NAMES)
    # Not those of the kernels that compute in float32.
    wide = [x.float() for x in inputs]
    exact = gradients(
        kernels, wide, image, seeds.float(), [x.float() for x in forward]
    )
    assert not torch.equal(first["w1"], exact["w1"])


@of_groups
def test_blocks_go_on_to_further_tiles(groups):
    """12 tiles or more, and three parts of the mapping's gradients."""
    image = (12, 2, 2, 3)
    assert_gradients_close(
        whole_numbers(groups, image, torch.float16), image, 1e-2
    )


def assert_gradients_close(inputs, image, tolerance):
    found, wanted = backward_both(inputs, image)
    for name in NAMES:
        largest = wanted[name].abs().max().item()
        off = (found[name].double() - wanted[name]).abs().max().item()
        assert off <= tolerance * largest, (name, off, largest)


# ---- The moments of the relation, and their gradient, of whole numbers.


def memory_of(op, features, relation, image):
    elements = kernels.pairwise_workspace(
        f"pairwise_{op}", features, relation, 1, kernel_size=image[3]
    )
    return torch.full((1, 1, 1, elements), torch.nan).double()


@of_all
def test_moments_of_whole_numbers_are_exact(groups, image, dtype):
    features, scale, shift, table, w1, _ = whole_numbers(groups, image, dtype)
    centre = shift.roll(1).contiguous()
    found, wanted = (
        [torch.full(x.shape, torch.nan).double() for x in (table, w1)]
        for _ in range(2)
    )
    kernels.pairwise_moments(
        *(features, scale, shift, centre, *found),
        kernel_size=image[3],
        workspace=memory_of("moments", features, 2 * groups, image),
    )
    inputs = (x.double() for x in (features, scale, shift, centre))
    cuda_kernels.pairwise_moments(*inputs, *wanted, kernel_size=image[3])
    assert all(map(torch.equal, found, wanted))


@of_all
def test_gradients_of_moments_of_whole_numbers(groups, image, dtype):
    features, scale, shift, table, w1, _ = whole_numbers(groups, image, dtype)
    inputs = [table, w1 + w1.transpose(2, 3), features, scale, shift]
    found = [torch.full_like(x, torch.nan) for x in inputs[2:]]
    kernels.pairwise_moments_backward(
        *(*inputs, *found),
        kernel_size=image[3],
        workspace=memory_of("moments_backward", features, 2 * groups, image),
    )
    exact = [x.double() for x in inputs]
    wanted = [torch.full_like(x, torch.nan) for x in exact[2:]]
    cuda_kernels.pairwise_moments_backward(
        *exact, *wanted, kernel_size=image[3]
    )
    assert torch.equal(found[0], wanted[0].to(dtype))
    for sums, value in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(sums.double(), value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("groups", [2, 8])
def test_moments_are_those_of_the_cpu(groups):
    """Of numbers that are rounded, and more tiles than blocks."""
    image = (12, 2, 2, 3)
    features, scale, shift, table, w1, _ = inputs_of(
        groups, image, torch.float16
    )
    found, wanted = (
        [torch.full(x.shape, torch.nan).double() for x in (table, w1)]
        for _ in range(2)
    )
    kernels.pairwise_moments(
        *(features, scale, shift, shift, *found),
        kernel_size=image[3],
        workspace=memory_of("moments", features, 2 * groups, image),
    )
    inputs = (x.double() for x in (features, scale, shift, shift))
    cuda_kernels.pairwise_moments(*inputs, *wanted, kernel_size=image[3])
    assert not torch.equal(found[1], wanted[1])
    for sums, value in zip(found, wanted, strict=True):
        atol = 2e-3 * value.abs().max().item()
        torch.testing.assert_close(sums, value, rtol=0, atol=atol)
