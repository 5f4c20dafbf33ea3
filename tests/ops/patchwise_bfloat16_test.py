"""Patchwise attention in bfloat16 on CPUs that multiply pairs of it."""

import pytest
import torch

import cuda_kernels
import san.ops.patchwise_core  # noqa: F401
from tests.ops.definitions import mirrored

pytestmark = pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)

HIDDEN = torch.ops.san.patchwise_hidden
CORE = torch.ops.san.patchwise_core

# R, G, members: odd numbers of terms and of rows, more of both than a block;
# one row less than are mixed in pairs; the published ones.
CHANNELS = [
    (1, 16, 1),
    (3, 17, 2),
    (5, 35, 1),
    (6, 15, 1),
    (16, 8, 8),
    (4, 32, 8),
    (16, 16, 2),
    (32, 64, 1),
]
# N, H, W, footprint: smaller than the footprint, narrow, wide, several bands.
IMAGES = [(1, 1, 1, 5), (3, 2, 3, 7), (2, 9, 11, 3), (1, 21, 67, 5)]


def inputs(channels, image):
    """The arguments of both operators, images in bfloat16."""
    relation, groups, members = channels
    batch, height, width, size = image
    taps = size**2
    generator = torch.Generator().manual_seed(5)

    def normal(*shape, divisor=1.0):
        return torch.randn(*shape, generator=generator) / divisor

    features = normal(batch, height, width, 2 * relation + groups * members)
    phi, psi, value = (
        features.bfloat16()
        .permute(0, 3, 1, 2)
        .split((relation, relation, groups * members), 1)
    )
    terms = relation * (taps + 1)
    hidden = (
        phi,
        psi,
        normal(1, terms, 1, 1),
        normal(1, terms, 1, 1),
        normal(groups, terms, 1, 1, divisor=terms**0.5),
        size,
    )
    layer = normal(batch, height, width, groups).relu().permute(0, 3, 1, 2)
    weight = normal(groups, size, size, groups, divisor=groups**0.5)
    return hidden, (layer, value, weight, normal(1, groups, size, size))


def unfolded(image, size):
    """[N, C, K, P]."""
    rows, columns = (mirrored(n, size // 2) for n in image.shape[2:])
    padded = image[:, :, rows][..., columns]
    return (
        padded.unfold(2, size, 1)
        .unfold(3, size, 1)
        .permute(0, 1, 4, 5, 2, 3)
        .flatten(4)
        .flatten(2, 3)
    )


def hidden_layer(phi, psi, scale, shift, weight, size):
    relation = torch.cat([phi.flatten(2), unfolded(psi, size).flatten(1, 2)], 1)
    a = (scale.flatten(2) * relation + shift.flatten(2)).relu()
    return torch.einsum("gs,nsp->ngp", weight[..., 0, 0], a)


def output(hidden, value, weight, bias):
    groups, size = weight.shape[:2]
    mapped = torch.einsum(
        "gtk,nkp->ngtp", weight.flatten(1, 2), hidden.flatten(2)
    )
    mapped = mapped + bias.flatten(2)[0][..., None]
    weights = mapped.repeat(1, value.shape[1] // groups, 1, 1)
    return (weights * unfolded(value, size)).sum(2)


def in_double(arguments):
    return [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_its_definition(channels, image):
    hidden, core = inputs(channels, image)
    for op, definition, arguments, dtype in (
        (HIDDEN, hidden_layer, hidden, torch.float32),
        (CORE, output, core, torch.bfloat16),
    ):
        result = op(*arguments)
        assert result.dtype == dtype
        expected = definition(*in_double(arguments)).view(result.shape)
        error = (result.double() - expected).abs().max()
        assert error < 0.02 * expected.abs().max()


def gradients(function, arguments):
    """Of all tensors among the arguments, for the same seeds of the result."""
    arguments = [
        a.detach().requires_grad_() if isinstance(a, torch.Tensor) else a
        for a in arguments
    ]
    result = function(*arguments)
    seeds = torch.randn(
        result.numel(), generator=torch.Generator().manual_seed(3)
    )
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
    return torch.autograd.grad(
        result, tensors, seeds.bfloat16().to(result.dtype).view(result.shape)
    )


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_gradients_equal_those_of_its_definition(channels, image):
    hidden, core = inputs(channels, image)
    for op, definition, arguments in (
        (HIDDEN, hidden_layer, hidden),
        (CORE, output, core),
    ):
        found = gradients(op, arguments)
        wanted = gradients(definition, in_double(arguments))
        for got, expected in zip(found, wanted, strict=True):
            error = (got.double() - expected).norm()
            assert error <= 0.02 * expected.norm()


@pytest.mark.parametrize("channels", [(3, 17, 2), (4, 32, 8)])
@pytest.mark.parametrize("place", ["phi", "psi", "hidden"])
def test_keeps_nan(channels, place):
    hidden, core = inputs(channels, (2, 9, 11, 3))
    tensor = {"phi": hidden[0], "psi": hidden[1], "hidden": core[0]}[place]
    tensor[1, -1, 4, 5] = torch.nan
    for op, definition, arguments in (
        (HIDDEN, hidden_layer, hidden),
        (CORE, output, core),
    ):
        expected = definition(*in_double(arguments))
        result = op(*arguments)
        assert torch.equal(result.isnan(), expected.view(result.shape).isnan())


@pytest.mark.parametrize("channels", [(16, 8, 8), (4, 32, 8), (32, 64, 1)])
def test_bits_do_not_depend_on_threads(channels):
    calls = list(zip((HIDDEN, CORE), inputs(channels, IMAGES[-1]), strict=True))
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        results.append(
            [
                tensor
                for op, arguments in calls
                for tensor in (op(*arguments), *gradients(op, arguments))
            ]
        )
    torch.set_num_threads(threads)
    for result in results:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize("name", cuda_kernels.instruction_sets()[:-1])
def test_other_processors_compute_in_float32(name):
    hidden, core = inputs((4, 32, 8), (1, 9, 11, 3))
    cuda_kernels.use_instruction_set(name)
    try:
        results = HIDDEN(*hidden), CORE(*core)
        wide = [a.float() for a in hidden[:2]]
        expected = (
            HIDDEN(*wide, *hidden[2:]),
            CORE(core[0], core[1].float(), *core[2:]).bfloat16(),
        )
    finally:
        cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])
    assert all(map(torch.equal, results, expected))
