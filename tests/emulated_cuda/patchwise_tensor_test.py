"""The patchwise kernels by tensor cores, run thread by thread.

Most cases are small integers: half types and TF32 hold them, their products and
what is rounded on the way exactly, so results have to be those of the CPU's
kernels in float64, to the bit.
"""

import numpy as np
import pytest
import torch

import cuda_kernels
from tests.emulated_cuda import kernels

# Batch, relation and weight channels, height, width, footprint. The published
# ones of SAN10, on small images; then partial tiles and several, images smaller
# than the footprint, fewer channels than a step and odd numbers, more than are
# in shared memory at a time.
PUBLISHED = [
    (1, 4, 2, 5, 9, 3),
    (2, 16, 8, 9, 8, 7),
    (1, 32, 16, 6, 7, 7),
    (1, 64, 32, 3, 9, 7),
    (1, 128, 64, 2, 3, 7),
]
OTHERS = [
    (1, 1, 1, 1, 1, 5),
    (2, 3, 3, 17, 9, 1),
    (1, 5, 9, 2, 3, 9),
    (1, 20, 17, 12, 9, 3),
    (1, 7, 24, 3, 18, 5),
    (1, 17, 33, 9, 4, 3),
    (1, 72, 5, 4, 10, 3),
    (1, 2, 2, 11, 3, 13),
    (1, 9, 40, 1, 9, 3),
]
SHAPES = PUBLISHED + OTHERS
# Dtype, and whether TF32 is allowed.
KINDS = {
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "TF32": (torch.float32, True),
    "float32": (torch.float32, False),
}
MEMBERS = 8


def integers(shape, most, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    low, high = -most, most + 1
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def hidden_inputs(shape, dtype):
    """grad_hidden, phi, psi, scale, shift and weight."""
    N, R, G, H, W, k = shape
    S = R * (k * k + 1)
    sizes = [(N, H, W, G), (N, H, W, R), (N, H, W, R), (1, S, 1, 1)]
    sizes += [(1, S, 1, 1), (G, S, 1, 1)]
    most = [2, 3, 3, 2, 2, 2]
    dtypes = [torch.float32, dtype, dtype, *[torch.float32] * 3]
    return [
        integers(*a, seed)
        for seed, a in enumerate(zip(sizes, most, dtypes, strict=True))
    ]


def core_inputs(shape, dtype):
    """grad_output, hidden, value, weight and bias."""
    N, _, G, H, W, k = shape
    C = G * MEMBERS
    sizes = [(N, H, W, C), (N, H, W, G), (N, H, W, C), (G, k, k, G)]
    sizes += [(1, G, k, k)]
    most = [1, 2, 2, 1, 2]
    dtypes = [dtype, torch.float32, dtype, torch.float32, torch.float32]
    return [
        integers(*a, seed)
        for seed, a in enumerate(zip(sizes, most, dtypes, strict=True))
    ]


def unwritten(tensor):
    return torch.full_like(tensor, torch.nan)


# The inputs, and the one whose sizes say what a workspace needs.
OPS = {"hidden": (hidden_inputs, 1), "core": (core_inputs, 2)}
# Which inputs need not be dense.
IMAGES = {"hidden": (1, 2), "core": (0, 2)}


def options(op, shape):
    return {"kernel_size": shape[-1]} if op == "hidden" else {}


def workspace(kernel, op, shape, inputs, allow_tf32):
    image = inputs[OPS[op][1]]
    sizes = {"weight_channels": shape[2], "kernel_size": shape[-1]}
    sizes["allow_tf32"] = allow_tf32
    count = kernels.patchwise_tensor_workspace(kernel, image, **sizes)
    assert count is not None
    return torch.full((1, 1, 1, count), torch.nan)


def run_forward(op, shape, inputs, allow_tf32):
    """By tensor cores; of what grad, the first input, is like."""
    name = f"patchwise_{op}_forward"
    grad, *rest = inputs
    output = unwritten(grad)
    getattr(kernels, name)(
        *rest,
        output,
        **options(op, shape),
        tensor_cores=True,
        allow_tf32=allow_tf32,
        workspace=workspace(name, op, shape, inputs, allow_tf32),
    )
    return [output]


def run_backward(op, shape, inputs, allow_tf32):
    name = f"patchwise_{op}_backward"
    grads = [unwritten(a) for a in inputs[1:]]
    getattr(kernels, name)(
        *inputs,
        *grads,
        **options(op, shape),
        tensor_cores=True,
        allow_tf32=allow_tf32,
        workspace=workspace(name, op, shape, inputs, allow_tf32),
    )
    return grads


def expected(op, shape, inputs, run):
    """On the CPU, in float64."""
    grad, *rest = [a.double() for a in inputs]
    if run is run_forward:
        output = unwritten(grad)
        kernel = getattr(cuda_kernels, f"patchwise_{op}_forward")
        kernel(*rest, output, **options(op, shape))
        return [output]
    grads = [unwritten(a) for a in rest]
    kernel = getattr(cuda_kernels, f"patchwise_{op}_backward")
    kernel(grad, *rest, *grads, **options(op, shape))
    return grads


def check(op, run, shape, kind, inputs=None):
    dtype, allow_tf32 = KINDS[kind]
    inputs = OPS[op][0](shape, dtype) if inputs is None else inputs
    results = run(op, shape, inputs, allow_tf32)
    references = expected(op, shape, inputs, run)
    for got, wanted in zip(results, references, strict=True):
        rounded = wanted.to(got.dtype)
        np.testing.assert_array_equal(got.double(), rounded.double())
    return results


of_passes = pytest.mark.parametrize(
    ("op", "run"),
    [(op, run) for op in OPS for run in (run_forward, run_backward)],
    ids=lambda value: getattr(value, "__name__", value),
)
of_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@of_kinds
@of_passes
def test_integers_are_exact(op, run, kind, shape):
    check(op, run, shape, kind)


@pytest.mark.parametrize("first", [1, 4, 8])
@pytest.mark.parametrize("sizes", [(16, 8), (4, 2)])
@of_kinds
@of_passes
def test_images_that_are_channels_of_one(op, run, kind, first, sizes):
    # Pixels are further apart, and begin off the boundaries of wide copies.
    shape = (2, *sizes, 9, 10, 3)
    dtype = KINDS[kind][0]
    inputs = OPS[op][0](shape, dtype)
    for index in IMAGES[op]:
        *sides, channels = inputs[index].shape
        image = torch.zeros(*sides, channels + 16, dtype=dtype)
        part = image[..., first : first + channels]
        inputs[index] = part.copy_(inputs[index])
    check(op, run, shape, kind, inputs)


# Of the largest value, with random numbers: what is multiplied is rounded to 8
# or 11 bits, so off by up to 2^-9 or 2^-12, in either direction.
TOLERANCE = {
    "bfloat16": 2**-7,
    "float16": 2**-10,
    "TF32": 2**-10,
    "float32": 2**-21,
}


@pytest.mark.parametrize("shape", [PUBLISHED[1], OTHERS[3]], ids=str)
@of_kinds
@of_passes
def test_random_numbers(op, run, kind, shape):
    dtype, allow_tf32 = KINDS[kind]
    generator = torch.Generator().manual_seed(7)
    inputs = [
        torch.randn(a.shape, generator=generator).to(a.dtype)
        for a in OPS[op][0](shape, dtype)
    ]
    results = run(op, shape, inputs, allow_tf32)
    references = expected(op, shape, inputs, run)
    for got, wanted in zip(results, references, strict=True):
        scale = wanted.abs().max()
        np.testing.assert_allclose(
            got.double() / scale, wanted / scale, rtol=0, atol=TOLERANCE[kind]
        )
    again = run(op, shape, inputs, allow_tf32)
    for first, second in zip(results, again, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("argument", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(5, 3), (4, 2)])
@of_kinds
@of_passes
def test_not_a_number_is_passed_on(op, run, kind, argument, sizes):
    # At a pixel that all taps show.
    shape = (1, *sizes, 9, 10, 3)
    inputs = OPS[op][0](shape, KINDS[kind][0])
    inputs[argument][0, 7, 3, -1] = torch.nan
    results = check(op, run, shape, kind, inputs)
    if run is run_backward or argument > 0:
        assert any(result.isnan().any() for result in results)
        assert not all(result.isnan().all() for result in results)


@of_kinds
@of_passes
def test_infinities_leave_no_number(op, run, kind):
    # Of float32's two parts the second is NaN then.
    shape = (1, 5, 3, 9, 10, 3)
    dtype, allow_tf32 = KINDS[kind]
    inputs = OPS[op][0](shape, dtype)
    inputs[2][0, 4, 5, -1] = torch.inf
    results = run(op, shape, inputs, allow_tf32)
    references = expected(op, shape, inputs, run)
    assert not all(wanted.isfinite().all() for wanted in references)
    for got, wanted in zip(results, references, strict=True):
        finite = wanted.isfinite()
        assert torch.equal(got.isfinite(), finite)
        rounded = wanted.to(got.dtype)
        assert torch.equal(got[finite], rounded[finite])


@of_kinds
@of_passes
def test_no_images(op, run, kind):
    shape = (0, 4, 2, 5, 7, 3)
    for result in check(op, run, shape, kind):
        assert not result.any()


@of_passes
def test_more_tiles_than_blocks(op, run):
    check(op, run, (600, 2, 1, 3, 2, 1), "bfloat16")


@pytest.mark.parametrize(
    ("op", "run", "shape", "dtype", "what"),
    [
        ("hidden", "forward", (1, 2, 2, 3, 4, 3), torch.float64, "type"),
        ("core", "backward", (1, 2, 2, 3, 4, 3), torch.float64, "type"),
        ("core", "forward", (1, 2, 2, 3, 4, 127), torch.bfloat16, "footprint"),
        ("hidden", "forward", (1, 2, 2, 3, 4, 127), torch.half, "footprint"),
        ("core", "backward", (1, 2, 65, 3, 4, 3), torch.bfloat16, "G"),
    ],
    ids=str,
)
def test_what_they_do_not_take(op, run, shape, dtype, what):
    inputs = OPS[op][0](shape, dtype)
    name = f"patchwise_{op}_{run}"
    sizes = {"weight_channels": shape[2], "kernel_size": shape[-1]}
    image = inputs[OPS[op][1]]
    assert kernels.patchwise_tensor_workspace(name, image, **sizes) is None
    outputs = inputs[:1] if run == "forward" else inputs[1:]
    arguments = inputs[1:] if run == "forward" else inputs
    with pytest.raises(ValueError, match=r"tensor_cores must be False for"):
        getattr(kernels, name)(
            *(a.to(torch.float64) if what == "type" else a for a in arguments),
            *(
                unwritten(a.to(torch.float64) if what == "type" else a)
                for a in outputs
            ),
            **options(op, shape),
            tensor_cores=True,
        )


def test_eight_channels_of_value_share_a_weight():
    value = torch.zeros(1, 3, 4, 12, dtype=torch.bfloat16)
    for kernel in ("patchwise_core_forward", "patchwise_core_backward"):
        size = kernels.patchwise_tensor_workspace(
            kernel, value, weight_channels=3, kernel_size=3
        )
        assert size is None


@of_passes
def test_half_types_are_for_tensor_cores_alone(op, run):
    shape = (1, 2, 2, 3, 4, 3)
    inputs = OPS[op][0](shape, torch.bfloat16)
    name = run.__name__.removeprefix("run_")
    outputs = inputs[:1] if run is run_forward else inputs[1:]
    arguments = inputs[1:] if run is run_forward else inputs
    kernel = getattr(kernels, f"patchwise_{op}_{name}")
    with pytest.raises(ValueError, match=r"tensors must be float32 or float64"):
        kernel(*arguments, *map(unwritten, outputs), **options(op, shape))


@pytest.mark.parametrize("count", [None, 5])
@of_passes
def test_the_workspace_is_checked(op, run, count):
    shape = (1, 2, 2, 3, 4, 3)
    inputs = OPS[op][0](shape, torch.bfloat16)
    name = run.__name__.removeprefix("run_")
    outputs = inputs[:1] if run is run_forward else inputs[1:]
    arguments = inputs[1:] if run is run_forward else inputs
    kernel = getattr(kernels, f"patchwise_{op}_{name}")
    memory = None if count is None else torch.zeros(1, 1, 1, count)
    with pytest.raises(ValueError, match=r"workspace must"):
        kernel(
            *arguments,
            *map(unwritten, outputs),
            **options(op, shape),
            tensor_cores=True,
            workspace=memory,
        )


def test_on_the_cpu_there_are_none():
    image = torch.zeros(1, 3, 4, 16, dtype=torch.bfloat16)
    kernel = "patchwise_hidden_forward"
    sizes = {"weight_channels": 2, "kernel_size": 3}
    size = cuda_kernels.patchwise_tensor_workspace(kernel, image, **sizes)
    assert size is None
    inputs = hidden_inputs((1, 16, 2, 3, 4, 3), torch.bfloat16)
    with pytest.raises(ValueError, match="tensor_cores must be False on the"):
        cuda_kernels.patchwise_hidden_forward(
            *inputs[1:], unwritten(inputs[0]), kernel_size=3, tensor_cores=True
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "patchwise"}, "kernel must be patchwise_hidden_forward,"),
        ({"weight_channels": 0}, "weight_channels must be at least 1, got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
    ],
)
def test_the_sizes_of_a_workspace_are_checked(change, message):
    arguments = {"kernel": "patchwise_core_forward", "weight_channels": 2}
    arguments |= {"image": torch.zeros(1, 3, 4, 16), "kernel_size": 3}
    with pytest.raises(ValueError, match=message):
        kernels.patchwise_tensor_workspace(**(arguments | change))
