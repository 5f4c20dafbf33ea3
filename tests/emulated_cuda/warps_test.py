"""What the lanes of a warp do together, against NumPy and plain torch."""

import numpy as np
import pytest
import torch

from tests.emulated_cuda.warp_kernels import warp_kernels

# What cuda/matrix.h says a product may be off by, of its largest term or sum.
OFF = 2.0**-18


def numbers(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def bits(tensor):
    """bfloat16 and float16 as NumPy has them: uint16."""
    return tensor.view(torch.uint16).numpy()


def test_shuffles():
    x, lanes = np.random.default_rng(0).normal(size=32), np.arange(32)
    found = np.empty((4, 32))
    warp_kernels.shuffle_once(x, found)
    down = np.where(lanes + 3 < 32, lanes + 3, lanes)
    among = np.where(lanes + 2 < 32, lanes + 2, lanes)
    wanted = [np.full(32, x[5]), x[lanes ^ 9], x[down], x[among]]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("positive", [[], [3], [20, 31], range(16), range(32)])
def test_votes(positive):
    x = np.full(32, -1, "int32")
    x[list(positive)] = 1
    found = np.empty((3, 32), "uint32")
    warp_kernels.vote_once(x, found)
    for half in (slice(0, 16), slice(16, 32)):
        yes = (x > 0)[half]
        votes = sum(1 << lane for lane in range(32)[half] if x[lane] > 0)
        assert (found[0, half] == votes).all()
        assert (found[1, half] == yes.any()).all()
        assert (found[2, half] == yes.all()).all()


def test_warps_that_wait_for_each_other():
    x = np.arange(64, dtype="int32")
    found = np.empty_like(x)
    warp_kernels.relay(x, found)
    np.testing.assert_array_equal(found, x[::-1])


@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_fill_the_rest_with_zeros(size):
    generator = np.random.default_rng(0)
    source = generator.integers(1, 255, (32, size), "uint8")
    count = generator.integers(0, size + 1, 32, "int32")
    count[:2] = 0, size
    found = np.empty_like(source)
    warp_kernels.copy_once(source, count, found)
    np.testing.assert_array_equal(
        found, np.where(np.arange(size) < count[:, None], source, 0)
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_loads_of_matrices(count, transposed):
    matrices = np.arange(count * 64, dtype="uint16").reshape(count, 8, 8)
    found = np.empty((32, count), "uint32")
    warp_kernels.load_once(matrices, found, transposed=transposed)
    if transposed:
        matrices = matrices.transpose(0, 2, 1)
    for lane in range(32):
        for m in range(count):
            low, high = matrices[m, lane // 4, lane % 4 * 2 :][:2].tolist()
            assert found[lane, m] == low + (high << 16)


def multiply_once(a, b, c, kind):
    found = np.empty((16, 8), "float32")
    warp_kernels.multiply_once(a, b, c, found, type=kind)
    return torch.from_numpy(found)


TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("kind", TYPES)
def test_products_of_16_bit_elements(kind):
    a = numbers(16, 16, dtype=TYPES[kind])
    b = numbers(16, 8, dtype=TYPES[kind], seed=1)
    c = numbers(16, 8, seed=2)
    found = multiply_once(bits(a), bits(b), c.numpy(), kind)
    wanted = c.double() + a.double() @ b.double()
    terms = torch.einsum("ik,kj->ijk", a.double(), b.double()).abs()
    off = (found - wanted).abs() / terms.amax(2).maximum(c.abs())
    assert off.max() < OFF
    assert off.max() > 0  # summed in float


def test_sums_have_another_order_in_each_order_of_threads(monkeypatch):
    a = bits(numbers(16, 16, dtype=torch.bfloat16))
    b = bits(numbers(16, 8, dtype=torch.bfloat16, seed=1))
    results = []
    for order in ("ascending", "descending"):
        monkeypatch.setenv("EMULATED_CUDA_ORDER", order)
        c = np.zeros((16, 8), "float32")
        results.append(multiply_once(a, b, c, "bfloat16"))
    assert (results[0] != results[1]).any()
    torch.testing.assert_close(*results, rtol=0, atol=OFF * 10)


def test_every_element_has_its_place():
    # Distinct powers of two: one wrong place changes the sums visibly.
    for k in range(16):
        a = torch.zeros(16, 16, dtype=torch.bfloat16)
        b = torch.zeros(16, 8, dtype=torch.bfloat16)
        a[:, k] = 2.0 ** torch.arange(16)
        b[k] = 2.0 ** torch.arange(0, 80, 10)
        found = multiply_once(
            bits(a), bits(b), np.zeros((16, 8), "float32"), "bfloat16"
        )
        torch.testing.assert_close(
            found.double(), a.double() @ b.double(), rtol=0, atol=0
        )


def rounded_to_tf32(x):
    """To 10 bits of fraction, ties away from zero."""
    fraction, exponent = np.frexp(x.astype("float64"))
    steps = np.trunc(np.abs(fraction) * 2**11 + 0.5)
    return np.copysign(np.ldexp(steps, exponent - 11), x)


def test_products_in_tf32():
    a, b, c = numbers(16, 8), numbers(8, 8, seed=1), numbers(16, 8, seed=2)
    a[0, 0] = 1 + 2.0**-11  # a tie
    a[0, 1] = -1 - 2.0**-11
    a[0, 2] = 2 - 2.0**-23  # carries into the exponent
    found = multiply_once(a.numpy(), b.numpy(), c.numpy(), "tf32")
    x, y = (torch.from_numpy(rounded_to_tf32(t.numpy())) for t in (a, b))
    assert x[0, :3].tolist() == [1 + 2.0**-10, -1 - 2.0**-10, 2]
    wanted = c.double() + x @ y
    assert (found - wanted).abs().max() < OFF * 10
    unrounded = c.double() + a.double() @ b.double()
    assert (found - unrounded).abs().max() > 1e-4


@pytest.mark.parametrize("kind", [*TYPES, "tf32"])
def test_not_a_number_and_infinity_in_products(kind):
    depth = 8 if kind == "tf32" else 16
    a, b = torch.ones(16, depth), torch.ones(depth, 8)
    a[2, 3] = torch.nan
    a[5, 1] = torch.inf
    b[1, 4] = 0
    wanted = a @ b
    if kind != "tf32":
        a, b = (bits(x.to(TYPES[kind])) for x in (a, b))
    found = multiply_once(
        np.asarray(a), np.asarray(b), np.zeros((16, 8), "float32"), kind
    )
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert found[2].isnan().all()
    assert found[5].isinf().sum() == 7


SIZES = [(1, 8, 8), (32, 32, 32), (33, 40, 72), (7, 64, 8), (70, 8, 128)]


@pytest.mark.parametrize(("M", "N", "K"), SIZES)
def test_a_product_of_matrices(M, N, K):
    a = numbers(M, K, dtype=torch.bfloat16)
    b = numbers(K, N, dtype=torch.bfloat16, seed=1)
    found = np.empty((M, N), "float32")
    warp_kernels.multiply(bits(a), bits(b), found)
    wanted = a.double() @ b.double()
    atol = OFF * (K // 16 + 1) * wanted.abs().max().clip(10).item()
    torch.testing.assert_close(
        torch.from_numpy(found).double(), wanted, rtol=0, atol=atol
    )


def test_a_product_over_nothing_is_zero():
    found = np.empty((5, 8), "float32")
    warp_kernels.multiply(
        np.empty((5, 0), "uint16"), np.empty((0, 8), "uint16"), found
    )
    assert (found == 0).all()


@pytest.mark.parametrize(("N", "K"), [(9, 8), (8, 9)])
def test_a_product_of_odd_sizes_is_refused(N, K):
    a, b = np.zeros((4, K), "uint16"), np.zeros((K, N), "uint16")
    with pytest.raises(ValueError, match="N and K must be multiples of 8"):
        warp_kernels.multiply(a, b, np.empty((4, N), "float32"))


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (4, 32), (5, 33), (9, 200), (3, 7)]
)
def test_softmax(rows, columns):
    x = numbers(rows, columns) * 20
    x[0, 0] = -torch.inf
    if columns > 1:
        x[-1, -1] = 1e4
    found = np.empty((rows, columns), "float32")
    warp_kernels.softmax(x.numpy(), found)
    torch.testing.assert_close(
        torch.from_numpy(found),
        x.softmax(1),
        rtol=1e-5,
        atol=1e-7,
        equal_nan=True,
    )
