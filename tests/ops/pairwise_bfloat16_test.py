"""Pairwise attention in bfloat16 on CPUs that multiply pairs of it."""

import pytest
import torch

import cuda_kernels
import san.ops.pairwise_core  # noqa: F401
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


def test_training_computes_in_float32():
    features, *mapping = inputs((32, 16, 32), (1, 9, 11, 3))
    output = CORE(features.requires_grad_(), *mapping)
    expected = CORE(features.detach().float(), *mapping)
    assert torch.equal(output, expected.bfloat16())
