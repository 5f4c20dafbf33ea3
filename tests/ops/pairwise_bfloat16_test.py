"""Pairwise attention in bfloat16 on CPUs that multiply pairs of it."""

import pytest
import torch

import cuda_kernels
import san
from san.attention import PairwiseAttention
from tests.ops.definitions import attend

pytestmark = pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)

CORE = torch.ops.san.pairwise_core

# R, G, M: odd, narrower than a vector, whole and partial vectors of groups and
# of channels; the published ones; wider than a row of the kernel's buffers.
CHANNELS = [
    (1, 1, 1),
    (4, 2, 16),
    (7, 5, 10),
    (9, 3, 21),
    (16, 8, 64),
    (20, 12, 24),
    (32, 16, 128),
    (33, 32, 96),
    (64, 32, 256),
    (140, 40, 80),
]
# N, H, W, footprint: smaller than the footprint; of several bands and strips,
# each with a rest.
IMAGES = [
    (1, 1, 1, 3),
    (2, 2, 3, 7),
    (1, 9, 11, 5),
    (2, 5, 4, 1),
    (1, 9, 31, 7),
]


def inputs(channels, image):
    """Arguments of san::pairwise_core: bfloat16 features, a float32 mapping."""
    relation, groups, value = channels
    batch, height, width, kernel_size = image
    generator = torch.Generator().manual_seed(3)

    def normal(*shape, divisor=1.0):
        return torch.randn(*shape, generator=generator) / divisor

    features = normal(batch, height, width, 2 * relation + value).bfloat16()
    return (
        features.permute(0, 3, 1, 2),
        normal(relation),
        normal(relation),
        normal(kernel_size**2, relation),
        normal(relation, relation, divisor=relation**0.5),
        normal(groups, relation, divisor=relation**0.5),
        kernel_size,
    )


def in_double(arguments):
    *tensors, kernel_size = arguments
    return (*(t.double() for t in tensors), kernel_size)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_its_definition(channels, image):
    arguments = inputs(channels, image)
    output = CORE(*arguments)
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)
    expected = attend(*in_double(arguments))
    rounded = attend(*in_double(arguments), factors=torch.bfloat16)
    bound = expected.abs() / 2**8 + (expected - rounded).abs().max() + 3e-3
    assert ((output.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("channels", [(4, 2, 16), (7, 5, 10), (64, 32, 64)])
def test_keeps_the_denominators(channels):
    image = (1, 9, 31, 3)
    *tensors, kernel_size = inputs(channels, image)
    features = tensors[0].permute(0, 2, 3, 1)
    mapping = [t.view(1, 1, -1, t.shape[-1]) for t in tensors[1:]]
    output = features.new_full((*image[:3], channels[2]), torch.nan)
    log_sum_exp = torch.full((*image[:3], channels[1]), torch.nan)
    cuda_kernels.pairwise_forward(
        features, *mapping, output, log_sum_exp, kernel_size=kernel_size
    )
    expected = CORE(*tensors, kernel_size).permute(0, 2, 3, 1)
    assert torch.equal(output, expected)
    plain = torch.empty(*output.shape), torch.empty_like(log_sum_exp)
    cuda_kernels.pairwise_forward(
        features.float(), *mapping, *plain, kernel_size=kernel_size
    )
    torch.testing.assert_close(log_sum_exp, plain[1], rtol=0, atol=0.05)


# With and without a partner of the last channel.
@pytest.mark.parametrize("channels", [(4, 2, 16), (9, 3, 21), (32, 16, 128)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", ["phi", "psi", "beta"])
def test_keeps_what_is_no_number(channels, value, part):
    # Narrow, for strips of pixels make NaN of an infinite psi in float32, too.
    arguments = inputs(channels, (1, 9, 11, 3))
    relation = channels[0]
    channel = {"phi": relation - 1, "psi": 2 * relation - 1}.get(part, -1)
    arguments[0][0, channel, 4, 5] = value
    output = CORE(*arguments)
    expected = attend(*in_double(arguments))
    assert value == value or not expected.isfinite().all()
    assert torch.equal(output.isnan(), expected.isnan())
    assert torch.equal(output.isposinf(), expected.isposinf())
    assert torch.equal(output.isneginf(), expected.isneginf())


def test_strips_of_pixels_keep_nan():
    arguments = inputs((4, 2, 16), (1, 9, 31, 3))
    arguments[0][0, 5, 4, 20] = torch.nan
    expected = attend(*in_double(arguments))
    assert expected.isnan().sum() == 9 * 16
    assert torch.equal(CORE(*arguments).isnan(), expected.isnan())


def test_large_logits_do_not_overflow():
    *tensors, kernel_size = inputs((32, 16, 32), (1, 4, 5, 3))
    tensors[-1] *= 1e4
    assert CORE(*tensors, kernel_size).isfinite().all()


@pytest.mark.parametrize("channels", [(4, 2, 16), (33, 32, 96)])
def test_bits_do_not_depend_on_threads(channels):
    arguments = inputs(channels, (3, 13, 31, 5))
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        results.append(CORE(*arguments))
    torch.set_num_threads(threads)
    assert all(torch.equal(y, results[0]) for y in results)


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last]
)
def test_layouts_and_empty_batches(layout):
    features, *mapping = inputs((16, 8, 64), (2, 6, 17, 3))
    expected = CORE(features, *mapping)
    image = features.contiguous(memory_format=layout)
    assert torch.equal(CORE(image, *mapping), expected)
    assert torch.equal(CORE(image[:1], *mapping), expected[:1])
    assert CORE(image[:0], *mapping).shape == (0, 64, 6, 17)


def test_writes_nothing_beside_its_output():
    *tensors, kernel_size = inputs((9, 3, 21), (1, 5, 7, 3))
    features = tensors[0].permute(0, 2, 3, 1)
    mapping = [t.view(1, 1, -1, t.shape[-1]) for t in tensors[1:]]
    memory = torch.full((5 * 7 * 21 + 128,), 7, dtype=torch.bfloat16)
    output = memory[64:-64].view(1, 5, 7, 21)
    cuda_kernels.pairwise_forward(
        features, *mapping, output, None, kernel_size=kernel_size
    )
    assert (memory[:64] == 7).all()
    assert (memory[-64:] == 7).all()


@pytest.mark.parametrize("name", cuda_kernels.instruction_sets()[:-1])
def test_other_processors_compute_in_float32(name):
    arguments = inputs((33, 32, 96), (1, 9, 11, 3))
    features, *mapping = arguments
    cuda_kernels.use_instruction_set(name)
    try:
        output = CORE(*arguments)
        expected = CORE(features.float(), *mapping)
        image = features.permute(0, 2, 3, 1)
        message = "features must be float32 or float64 on the CPU"
        with pytest.raises(ValueError, match=message):
            cuda_kernels.pairwise_forward(
                image,
                *(t.view(1, 1, -1, t.shape[-1]) for t in mapping[:-1]),
                image.new_empty((*image.shape[:3], 96)),
                None,
                kernel_size=3,
            )
    finally:
        cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])
    assert torch.equal(output, expected.bfloat16())


def test_training_gives_the_same_output():
    features, *mapping = inputs((33, 16, 32), (1, 9, 11, 3))
    expected = CORE(features, *mapping)
    output = CORE(features.requires_grad_(), *mapping)
    assert output.requires_grad
    assert torch.equal(output, expected)


def gradients(function, arguments, **options):
    """Of all tensors; they are in the tensors' dtypes."""
    *tensors, kernel_size = arguments
    tensors = [t.detach().requires_grad_() for t in tensors]
    output = function(*tensors, kernel_size, **options)
    generator = torch.Generator().manual_seed(4)
    seeds = torch.randn(output.shape, generator=generator).bfloat16()
    grads = torch.autograd.grad(output, tensors, seeds.to(output.dtype))
    assert [g.dtype for g in grads] == [t.dtype for t in tensors]
    return grads


# Of one pixel the softmax is 1, whatever the mapping is.
@pytest.mark.parametrize("image", IMAGES[1:])
@pytest.mark.parametrize("channels", CHANNELS)
def test_gradients_equal_the_definition(channels, image):
    arguments = inputs(channels, image)
    results = gradients(CORE, arguments)
    exact = gradients(attend, in_double(arguments))
    rounded = gradients(attend, in_double(arguments), factors=torch.bfloat16)
    for got, expected, other in zip(results, exact, rounded, strict=True):
        error = (got.double() - expected).norm()
        bound = 1.5 * (other - expected).norm() + expected.norm() / 2**8
        assert error <= bound + 1e-3


@pytest.mark.parametrize("image", IMAGES[1:])
@pytest.mark.parametrize("channels", CHANNELS[1:])
def test_moments_equal_those_of_float64(channels, image):
    features, scale, shift, *_, kernel_size = inputs(channels, image)
    single = [t.requires_grad_() for t in (features, scale, shift)]
    double = [t.detach().double().requires_grad_() for t in single]
    results = []
    for tensors in (single, double):
        centre = tensors[2].detach().relu()
        ops, relation = torch.ops.san, channels[0]
        of_relation = ops.pairwise_moments(*tensors, centre, kernel_size)
        of_difference = ops.pairwise_difference_moments(
            tensors[0], relation, kernel_size
        )
        results.append([*of_difference, *of_relation])
        for moments in (of_relation, of_difference):
            total = sum(t.sum() for t in moments)
            results[-1] += torch.autograd.grad(
                total, tensors, allow_unused=True, materialize_grads=True
            )
    for got, expected in zip(*results, strict=True):
        error = (got.double() - expected).norm()
        assert error <= expected.norm() / 2**7 + 1e-6


# Far from 0, where the two parts of the gradient cancel.
def test_gradient_of_moments_is_about_the_centre():
    features, scale, shift, *_, kernel_size = inputs((16, 8, 64), (1, 9, 31, 3))
    features, shift = features / 4, torch.full_like(shift, 30.0)
    generator = torch.Generator().manual_seed(5)
    seeds = torch.randn(16, 16, generator=generator).double()
    grads = []
    for image, dtype in (
        (features, torch.float32),
        (features.double(), torch.float64),
    ):
        vectors = scale.to(dtype), shift.to(dtype), shift.to(dtype)
        _, second = torch.ops.san.pairwise_moments(
            image.requires_grad_(), *vectors, kernel_size
        )
        grads += torch.autograd.grad(second, image, seeds)
    got, expected = grads
    assert (got.double() - expected).norm() <= 0.08 * expected.norm()


@pytest.mark.parametrize("channels", [(4, 2, 16), (33, 32, 96)])
def test_bits_of_gradients_do_not_depend_on_threads(channels):
    arguments = inputs(channels, (3, 13, 31, 5))
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        results.append(gradients(CORE, arguments))
    torch.set_num_threads(threads)
    for grads in results[1:]:
        assert all(map(torch.equal, grads, results[0]))


@pytest.mark.parametrize("channels", [(4, 2, 16), (9, 3, 21)])
def test_gradients_write_nothing_beside_theirs(channels):
    *tensors, kernel_size = inputs(channels, (1, 5, 17, 3))
    features = tensors[0].permute(0, 2, 3, 1)
    mapping = [t.view(1, 1, -1, t.shape[-1]) for t in tensors[1:]]
    output = features.new_ones((1, 5, 17, channels[2]))
    log_sum_exp = torch.zeros(1, 5, 17, channels[1])
    count = features.numel()
    memory = torch.full((count + 128,), 7, dtype=torch.bfloat16)
    cuda_kernels.pairwise_backward(
        *(output, output, log_sum_exp, features, *mapping),
        memory[64:-64].view(features.shape),
        *(torch.empty_like(t) for t in mapping),
        kernel_size=kernel_size,
    )
    assert (memory[:64] == 7).all()
    assert (memory[-64:] == 7).all()
    assert not (memory[64:-64] == 7).all()


@pytest.mark.parametrize("name", cuda_kernels.instruction_sets()[:-1])
def test_other_processors_differentiate_in_float32(name):
    features, *mapping = inputs((33, 32, 96), (1, 9, 11, 3))
    arguments = (features, *mapping)
    cuda_kernels.use_instruction_set(name)
    try:
        grads = gradients(CORE, arguments)
        single = gradients(CORE, (features.float(), *mapping))
    finally:
        cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])
    # The output, which the gradient of the softmax reads, is rounded.
    for got, expected in zip(grads, single, strict=True):
        error = (got.float() - expected).norm()
        assert error <= expected.norm() / 2**7


@pytest.mark.parametrize("part", [8, 24, 40], ids=["phi", "psi", "beta"])
def test_gradients_keep_what_is_no_number(part):
    features, *mapping = inputs((16, 8, 64), (1, 9, 11, 3))
    features[0, part, 4, 5] = torch.nan
    got, *_ = gradients(CORE, (features, *mapping))
    expected, *_ = gradients(attend, in_double((features, *mapping)))
    assert expected.isnan().any()
    assert not expected.isnan().all()
    assert torch.equal(got.isnan(), expected.isnan())


# Eager PyTorch under autocast, which rounds all that has K taps.
@pytest.mark.parametrize(("channels", "kernel_size"), [(64, 3), (256, 7)])
def test_no_further_from_float64_than_eager_autocast(channels, kernel_size):
    torch.manual_seed(0)
    block = PairwiseAttention(channels, kernel_size)
    images = torch.randn(2, channels, 14, 14).bfloat16()
    results = {}
    for name, dtype in (
        ("float64", torch.float64),
        ("fused", torch.float32),
        ("unfused", torch.float32),
    ):
        block.to(dtype).zero_grad()
        x = images.to(dtype).requires_grad_()
        with (
            san.use_attention_backend(
                "fused" if name == "fused" else "unfused"
            ),
            torch.autocast("cpu", enabled=name != "float64"),
        ):
            y = block(x)
        generator = torch.Generator().manual_seed(1)
        y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
        grads = [p.grad for p in block.parameters() if p.grad is not None]
        results[name] = [t.double() for t in (y, x.grad, *grads)]
    for exact, fused, unfused in zip(*results.values(), strict=True):
        # What the norms cancel is zero but for rounding.
        bound = 1.5 * (unfused - exact).norm() + exact.norm() / 2**8 + 0.05
        assert (fused - exact).norm() <= bound
