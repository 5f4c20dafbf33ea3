"""The fused patchwise attention against the block made of single operators."""

import copy

import pytest
import torch
from torch import nn

import san
from san.attention import PatchwiseAttention
from san.ops.patchwise_attention import patchwise_attention
from tests.ops.windows import random_tensor

# Channels of the block, footprint, batch, height, width.
SHAPES = [
    (64, 3, 2, 9, 7),
    (64, 7, 3, 2, 3),
    (32, 5, 2, 1, 1),
    (96, 1, 2, 5, 4),
    (128, 7, 2, 14, 14),
    (64, 7, 2, 33, 30),
    (32, 11, 2, 12, 5),
    (32, 9, 1, 31, 33),
]


def block(channels=64, kernel_size=3, dtype=torch.float64, seed=0):
    """A block whose normalisations are in use."""
    torch.manual_seed(seed)
    module = PatchwiseAttention(channels, kernel_size)
    for norm in (module.conv_w[0], module.conv_w[3]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return module.to(dtype)


def unfused(module, x):
    # What PatchwiseAttention.forward says, whichever path it takes itself.
    from san.ops import aggregation

    return aggregation(
        module.conv3(x),
        module.weights(x),
        module.kernel_size,
        padding=module.padding,
    )


def fused(module, x):
    return patchwise_attention(
        module.conv1(x),
        module.conv2(x),
        module.conv3(x),
        module.conv_w,
        module.kernel_size,
    )


def everything(function, module, x):
    """Output, gradients and buffers by name, after one step."""
    module, x = copy.deepcopy(module), x.detach().clone().requires_grad_()
    output = function(module, x)
    seeds = random_tensor(*output.shape, dtype=output.dtype, seed=3).detach()
    output.backward(seeds)
    return {
        "output": output.detach(),
        "x": x.grad,
        **{name: p.grad for name, p in module.named_parameters()},
        **dict(module.named_buffers()),
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_unfused_block(shape, training):
    channels, kernel_size, batch, height, width = shape
    module = block(channels, kernel_size).train(training)
    x = random_tensor(batch, channels, height, width)
    got, expected = everything(fused, module, x), everything(unfused, module, x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("place", [(1, 4, 5), (0, 0, 0)])
def test_not_a_number_is_passed_on(place):
    module = block().eval()
    x = random_tensor(2, 64, 9, 11)
    with torch.no_grad():
        x[:, 1][place] = torch.nan
    got = everything(fused, module, x)
    expected = everything(unfused, module, x)
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name],
            value,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_float32_agrees_with_float64():
    module = block(channels=128, kernel_size=7)
    x = random_tensor(2, 128, 15, 13)
    exact = everything(fused, module, x)
    got = everything(fused, module.float(), x.float())
    for name, value in got.items():
        scale = exact[name].abs().max() + 1
        torch.testing.assert_close(
            value.double() / scale,
            exact[name].double() / scale,
            rtol=0,
            atol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_statistics_of_a_large_mean():
    module = block(dtype=torch.float32)
    nn.init.constant_(module.conv2.bias, 1000.0)
    x = random_tensor(4, 64, 12, 12, dtype=torch.float32)
    got, expected = everything(fused, module, x), everything(unfused, module, x)
    for name in ("conv_w.0.running_mean", "conv_w.0.running_var"):
        torch.testing.assert_close(
            got[name], expected[name], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("changes", [{"momentum": None}, {"affine": False}])
def test_other_batch_normalisations(changes):
    module = block()
    for index in (0, 3):
        norm = module.conv_w[index]
        module.conv_w[index] = nn.BatchNorm2d(
            norm.num_features, dtype=torch.float64, **changes
        )
    x = random_tensor(2, 64, 5, 6)
    torch.testing.assert_close(
        everything(fused, module, x), everything(unfused, module, x)
    )


@pytest.mark.parametrize("training", [False, True])
def test_without_running_statistics(training):
    module = block().train(training)
    norm = module.conv_w[0]
    module.conv_w[0] = nn.BatchNorm2d(
        norm.num_features, track_running_stats=False, dtype=torch.float64
    ).train(training)
    x = random_tensor(2, 64, 5, 6)
    torch.testing.assert_close(
        everything(fused, module, x), everything(unfused, module, x)
    )


def test_second_derivative_is_refused():
    module, x = block(), random_tensor(1, 64, 4, 5)
    (grad,) = torch.autograd.grad(fused(module, x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated again"):
        grad.sum().backward()


def test_any_strides():
    module, x = block(), random_tensor(2, 64, 5, 6)
    layout = x.detach().to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        everything(fused, module, layout), everything(fused, module, x)
    )


@pytest.mark.parametrize("training", [False, True])
def test_compiles_into_one_graph(training):
    module, x = block().train(training), random_tensor(2, 64, 5, 6)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        everything(compiled, module, x), everything(fused, module, x)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype):
    module = block(dtype=torch.float32).eval()
    x = random_tensor(2, 64, 5, 6, dtype=torch.float32).detach()
    inputs = [
        c(x).to(dtype) for c in (module.conv1, module.conv2, module.conv3)
    ]
    got = patchwise_attention(*inputs, module.conv_w, 3)
    expected = patchwise_attention(
        *(t.float() for t in inputs), module.conv_w, 3
    )
    assert got.dtype == dtype
    assert torch.equal(got, expected.to(dtype))
    halved = copy.deepcopy(module.conv_w).to(dtype)
    torch.testing.assert_close(
        patchwise_attention(*inputs, halved, 3), got, rtol=0.1, atol=0.1
    )


def test_autocast():
    module = block(dtype=torch.float32)
    x = random_tensor(2, 64, 5, 6, dtype=torch.float32)
    exact = everything(fused, module, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = everything(fused, module, x)
    assert got["output"].dtype == torch.bfloat16
    assert got["x"].dtype == torch.float32
    torch.testing.assert_close(
        got["output"].float(), exact["output"], rtol=0.1, atol=0.1
    )


def test_saved_memory_does_not_depend_on_the_footprint():
    sizes = []
    for kernel_size in (3, 7):
        module = block(kernel_size=kernel_size, dtype=torch.float32)
        parameters = {p.data_ptr() for p in module.parameters()}
        saved = {}

        def pack(tensor, parameters=parameters, saved=saved):
            # Parameters are small and not made by the step.
            if tensor.data_ptr() not in parameters and tensor.dim() == 4:
                storage = tensor.untyped_storage()
                if tensor.shape[0] == 4:
                    saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        x = random_tensor(4, 64, 12, 12, dtype=torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            fused(module, x)
        sizes.append(sum(saved.values()))
    assert sizes[0] == sizes[1] > 0


def test_no_images():
    module = block().eval()
    assert fused(module, torch.zeros(0, 64, 5, 6).double()).shape == (
        0,
        16,
        5,
        6,
    )


def image(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(*shape, dtype=dtype, device=device)


def mapping(inputs=40, hidden=2, outputs=18):
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, 1),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phi": 1}, "phi must be a torch.Tensor, got int"),
        ({"psi": image(4, 5, 7)}, "psi must have 4 dimensions, got shape"),
        (
            {"value": image(2, 16, 5, 7, dtype=torch.int32)},
            "value must be float32, float64, float16 or bfloat16, got torch.i",
        ),
        (
            {"value": image(2, 16, 5, 7, device="meta")},
            "phi must be on the device of value, meta, got cpu",
        ),
        (
            {"phi": image(2, 4, 5, 7, dtype=torch.float64)},
            "phi must have the dtype of value, torch.float32, got torch.float64",
        ),
        (
            {"psi": image(2, 4, 5, 7, device="meta")},
            "psi must be on the device of value, cpu, got meta",
        ),
        (
            {"psi": image(2, 4, 5, 6)},
            r"psi must have the shape of phi, \[2, 4, 5, 7\], got \[2, 4, 5, 6",
        ),
        (
            {"phi": image(2, 4, 0, 7), "psi": image(2, 4, 0, 7)},
            r"phi must have sizes of at least 1, got \[2, 4, 0, 7\]",
        ),
        (
            {"value": image(2, 16, 5, 6)},
            r"value must have the shape \[N, C, H, W\] = \[2, C, 5, 7\], got",
        ),
        (
            {"kernel_size": 2},
            "kernel_size must be a positive odd number of at most 127, got 2",
        ),
        (
            {"kernel_size": 129},
            "kernel_size must be a positive odd number of at most 127, got 1",
        ),
        (
            {"kernel_size": 3.0},
            "kernel_size must be a positive odd number of at most 127, got 3.",
        ),
        (
            {"mapping": nn.ReLU()},
            "mapping must be an nn.Sequential of 6 layers",
        ),
        (
            {"mapping": mapping(36)},
            r"mapping must take R \* \(kernel_size\*\*2 \+ 1\) = 40 channels, "
            "got 36",
        ),
        (
            {"mapping": mapping(outputs=9)},
            r"mapping must make G \* kernel_size\*\*2 = 18 channels, got 9",
        ),
        (
            {"value": image(2, 15, 5, 7)},
            "value must have a multiple of G = 2 channels, got 15",
        ),
    ],
)
def test_errors(changes, message):
    arguments = {
        "phi": image(2, 4, 5, 7),
        "psi": image(2, 4, 5, 7),
        "value": image(2, 16, 5, 7),
        "mapping": mapping(),
        "kernel_size": 3,
        **changes,
    }
    with pytest.raises(ValueError, match=f"^patchwise_attention: {message}"):
        patchwise_attention(**arguments)


def test_one_value_per_channel_cannot_be_normalised():
    module = block()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused(module, random_tensor(1, 64, 1, 1))


def test_a_nearly_constant_edge_far_from_the_mean():
    # Taps that never show the other rows see next to no variance.
    torch.manual_seed(0)
    fused = PatchwiseAttention(32, 7).train()
    unfused = copy.deepcopy(fused).double()
    x = torch.zeros(1, 32, 7, 7)
    x[:, :, :3] = 300 * torch.rand(1, 32, 3, 7)
    found = fused(x)
    with torch.no_grad():
        san.set_attention_backend("unfused")
        try:
            expected = unfused(x.double())
        finally:
            san.set_attention_backend()
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    assert (fused.conv_w[0].running_var >= 0).all()
