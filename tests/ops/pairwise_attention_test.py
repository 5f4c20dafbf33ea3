"""Fused pairwise attention against the unfused block."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import san
from san.ops import pairwise_attention
from tests.ops.windows import random_tensor

# Channels, footprint, batch, height, width: lanes that fit and lanes that do
# not, images smaller than the footprint, single rows, columns and pixels.
SHAPES = [
    (32, 3, 2, 5, 7),
    (64, 1, 2, 4, 3),
    (64, 3, 1, 1, 1),
    (64, 7, 2, 9, 11),
    (64, 7, 2, 2, 3),
    (96, 5, 3, 6, 5),
    (64, 9, 2, 1, 6),
    (64, 9, 2, 6, 1),
    (64, 11, 1, 4, 13),
    (256, 7, 1, 18, 9),
    (512, 5, 1, 5, 4),
    (2560, 3, 1, 3, 4),
]
# Their gradient is zero: the softmax and the differences do not see them.
WITHOUT_EFFECT = ("conv_p.bias", "conv_w.5.bias")


@pytest.fixture(autouse=True)
def default_again():
    yield
    san.set_attention_backend()


def make_block(channels, kernel_size, dtype=torch.float64, seed=0):
    """A block in which every parameter and buffer has an effect."""
    generator = torch.Generator().manual_seed(seed)
    block = san.PairwiseAttention(channels, kernel_size).to(dtype)
    for parameter in block.parameters():
        fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(values / fan_in**0.5 + 0.2 * (fan_in == 4))
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return block


def run(block, x, backend):
    """Result, gradients by name, and buffers after one forward, backward."""
    san.set_attention_backend(backend)
    block = copy.deepcopy(block)
    x = x.detach().clone().requires_grad_()
    y = block(x)
    seeds = random_tensor(*y.shape, dtype=y.dtype, seed=3).detach()
    y.backward(seeds)
    gradients = {name: p.grad for name, p in block.named_parameters()}
    gradients["x"] = x.grad
    return y.detach(), gradients, dict(block.named_buffers())


def assert_close(got, expected, tolerance):
    for name, value in expected.items():
        scale = tolerance * (value.abs().max().item() + 1)
        error = (got[name] - value).abs().max().item() if value.numel() else 0
        assert error <= scale, (name, error)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_unfused_block(shape, training):
    channels, kernel_size, *image = shape
    block = make_block(channels, kernel_size).train(training)
    x = random_tensor(image[0], channels, *image[1:], seed=1)
    output, gradients, buffers = run(block, x, "fused")
    expected, expected_gradients, expected_buffers = run(block, x, "unfused")
    torch.testing.assert_close(output, expected, rtol=1e-11, atol=1e-11)
    assert_close(gradients, expected_gradients, 1e-9)
    assert_close(buffers, expected_buffers, 1e-11)
    for name in WITHOUT_EFFECT:
        assert gradients[name].abs().max() == 0


@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_the_reference_in_float32(training):
    block = make_block(256, 7, torch.float32).train(training)
    x = random_tensor(2, 256, 14, 14, dtype=torch.float32, seed=1)
    output, gradients, buffers = run(block, x, "fused")
    exact = copy.deepcopy(block).double()
    expected, expected_gradients, expected_buffers = run(
        exact, x.double(), "reference"
    )
    assert_close({"y": output.double()}, {"y": expected}, 2e-6)
    assert_close(
        {name: g.double() for name, g in gradients.items()},
        expected_gradients,
        2e-5,
    )
    assert_close(
        {name: b.double() for name, b in buffers.items()},
        {name: b.double() for name, b in expected_buffers.items()},
        2e-6,
    )


def test_equal_weights_average_the_footprint():
    block = make_block(32, 3).eval()
    nn.init.zeros_(block.conv_w[5].weight)
    features = torch.zeros(1, 2 * 2 + 8, 2, 3, dtype=torch.float64)
    features[0, 4] = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    output = pairwise_attention(features, block.conv_p, block.conv_w, 3)
    # The mirror shows row 1, row 0, row 1 to row 0, and columns likewise.
    rows = torch.tensor([2 * 8 + 1, 2 * 16 + 2, 2 * 32 + 4]).double()
    expected = (
        torch.stack([2 * rows[1] + rows[0], rows.sum(), 2 * rows[1] + rows[2]])
        / 9
    )
    torch.testing.assert_close(output[0, 0, 0], expected)


def test_no_large_mean_spoils_the_statistics():
    """float32 statistics survive offsets of a thousand deviations."""
    block = make_block(64, 3, torch.float32).train()
    with torch.no_grad():
        block.conv1.bias += 1000
        block.conv_w[0].bias += 100
        block.conv_w[0].momentum = block.conv_w[3].momentum = 1.0
    x = random_tensor(2, 64, 12, 12, dtype=torch.float32, seed=1)
    _, _, buffers = run(block, x, "fused")
    exact = copy.deepcopy(block).double()
    _, _, expected = run(exact, x.double(), "reference")
    for name in ("conv_w.0.running_var", "conv_w.3.running_var"):
        torch.testing.assert_close(
            buffers[name].double(), expected[name], rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_tracks_statistics_as_batch_norm_does(momentum):
    block = make_block(64, 3).train()
    block.conv_w[0].momentum = block.conv_w[3].momentum = momentum
    buffers = {}
    for backend in ("fused", "unfused"):
        san.set_attention_backend(backend)
        trained = copy.deepcopy(block)
        for seed in range(3):
            trained(random_tensor(2, 64, 5, 4, seed=seed))
        buffers[backend] = dict(trained.named_buffers())
    assert buffers["fused"]["conv_w.0.num_batches_tracked"] == 3
    assert_close(buffers["fused"], buffers["unfused"], 1e-11)


def test_batch_norms_without_affine_or_tracking():
    block = make_block(64, 3).eval()
    for index in (0, 3):
        features = block.conv_w[index].num_features
        block.conv_w[index] = nn.BatchNorm2d(
            features, affine=False, track_running_stats=False
        )
    x = random_tensor(2, 64, 5, 4)
    output, gradients, _ = run(block, x, "fused")
    expected, expected_gradients, _ = run(block, x, "unfused")
    torch.testing.assert_close(output, expected)
    assert_close(gradients, expected_gradients, 1e-9)


def test_any_strides():
    block = make_block(64, 5).train()
    dense = random_tensor(2, 64, 6, 7, seed=1).detach()
    strided = dense.transpose(2, 3).contiguous().transpose(2, 3)
    last = dense.contiguous(memory_format=torch.channels_last)
    expected = block(dense)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    for x in (strided, last):
        torch.testing.assert_close(block(x), expected)


def test_no_images():
    block = make_block(64, 3).eval()
    x = torch.zeros(0, 64, 5, 4, dtype=torch.float64, requires_grad=True)
    y = block(x)
    y.sum().backward()
    assert y.shape == (0, 16, 5, 4)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training):
    block = make_block(64, 3).train(training)
    compiled = torch.compile(
        copy.deepcopy(block), fullgraph=True, backend="aot_eager"
    )
    x = random_tensor(2, 64, 5, 4, seed=1)
    results = []
    for module in (block, compiled):
        y = module(x)
        (gradient,) = torch.autograd.grad(y.sin().sum(), x)
        results.append((y, gradient, module.conv_w[0].running_var))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_autocast(dtype, training):
    block = make_block(64, 3, torch.float32).train(training)
    x = random_tensor(2, 64, 6, 5, dtype=torch.float32, seed=1)
    expected = block(x)
    with torch.autocast("cpu", dtype=dtype):
        y = block(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
    y.float().sum().backward()
    assert all(p.grad.dtype == p.dtype for p in block.parameters())


def test_half_features_are_computed_in_float32():
    block = make_block(64, 3, torch.float32).eval()
    features = random_tensor(2, 24, 6, 5, dtype=torch.float16).detach()
    call = (block.conv_p, block.conv_w, 3)
    output = pairwise_attention(features, *call)
    expected = pairwise_attention(features.float(), *call)
    assert torch.equal(output, expected.half())


def test_checkpointing():
    block = make_block(64, 3).train()
    x = random_tensor(2, 64, 5, 4, seed=1)
    (expected,) = torch.autograd.grad(block(x).sin().sum(), x)
    y = checkpoint(block, x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(y.sin().sum(), x)
    assert torch.equal(gradient, expected)


def test_same_bits_for_every_number_of_threads():
    block = make_block(64, 7, torch.float32).train()
    threads = torch.get_num_threads()
    features = random_tensor(3, 24, 27, 19, dtype=torch.float32).detach()
    results = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            leaf = features.clone().requires_grad_()
            trained = copy.deepcopy(block)
            y = pairwise_attention(leaf, trained.conv_p, trained.conv_w, 7)
            y.backward(y.detach())
            results.append(
                [
                    y,
                    leaf.grad,
                    *(p.grad for p in trained.conv_w.parameters()),
                    *trained.buffers(),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def saved_elements(block, x):
    """Elements of the distinct tensors kept for backward."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        block(x)
    return sum(storages.values())


def test_saved_memory_is_the_features_whatever_the_footprint():
    x = random_tensor(1, 64, 24, 24, seed=1)
    pixels = 24 * 24
    for kernel_size in (3, 11):
        block = make_block(64, kernel_size).train()
        # The image, the 24 feature channels, the output, which the layer
        # after it keeps anyway, two logarithms, and what has no pixels.
        small = saved_elements(block, x) - (64 + 24 + 16 + 2) * pixels
        assert 0 <= small < 12000
    san.set_attention_backend("unfused")
    assert saved_elements(make_block(64, 3).train(), x) > 250 * pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 1}, "features must be a torch.Tensor, got int"),
        ({"features": torch.zeros(2, 3)}, "features must have 4 dimensions"),
        (
            {"features": torch.zeros(1, 24, 4, 4, dtype=torch.int32)},
            "features must be float32, float64, float16 or bfloat16",
        ),
        (
            {"features": torch.zeros(1, 24, 0, 4)},
            "features must have a height and a width of at least 1",
        ),
        ({"features": torch.zeros(1, 7, 4, 4)}, "features must have 2 . 4"),
        ({"features": torch.zeros(1, 25, 4, 4)}, "a multiple of 2, got 25"),
        ({"kernel_size": 4}, "kernel_size must be a positive odd integer"),
        ({"kernel_size": True}, "kernel_size must be a positive odd integer"),
        ({"position": nn.Conv2d(3, 2, 1)}, "position must have a weight"),
        (
            {"mapping": san.PairwiseAttention(128, 3).conv_w[3:] * 2},
            "mapping must take R . 2 channels to R and R to G",
        ),
    ],
)
def test_errors(change, message):
    block = make_block(64, 3, torch.float32)
    arguments = {
        "features": torch.zeros(1, 24, 4, 4),
        "position": block.conv_p,
        "mapping": block.conv_w,
        "kernel_size": 3,
    }
    with pytest.raises(ValueError, match=f"pairwise_attention: .*{message}"):
        pairwise_attention(**{**arguments, **change})


def test_backends():
    assert san.attention_backend() == "fastest"
    block = make_block(64, 3).eval()
    x = random_tensor(1, 64, 5, 4)
    results = []
    for name in ("fused", "unfused", "reference"):
        san.set_attention_backend(name)
        assert name in repr(block)
        results.append(block(x))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])
    with pytest.raises(ValueError, match=r"'fuse'; the nearest is 'fused'"):
        san.set_attention_backend("fuse")
