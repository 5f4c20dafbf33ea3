"""Norm, ReLU and pooling as one operator against torch's layers."""

import copy

import pytest
import torch
from torch import nn

import san
from san.norms import Moments
from san.ops import norm_relu, norm_relu_linear
from tests.ops.norms import (
    SHAPES,
    TOLERANCE,
    assert_close,
    image,
    linear_parameters,
    make_norm,
    plain,
    plain_linear,
    run,
)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_relu_equals_the_layers(shape, pool, training):
    norm = make_norm(shape[1]).train(training)
    # torch has no pooling without a window.
    x = image((*shape[:2], max(shape[2], pool), shape[3]))
    assert_close(
        run(lambda x, norm: norm_relu(x, norm, pool), norm, x),
        run(plain(pool), norm, x),
        TOLERANCE[torch.float64],
    )


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize("pool", [1, 2])
def test_other_types_are_near_float64(dtype, pool):
    norm = make_norm(24)
    x = image((4, 24, 9, 10), dtype)
    assert_close(
        run(lambda x, norm: norm_relu(x, norm, pool), norm, x),
        run(plain(pool), norm, x.double()),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize(
    "options",
    [
        {"affine": False},
        {"track_running_stats": False},
        {"momentum": None},
        {"eps": 0.5},
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_every_kind_of_norm(options, training):
    norm = make_norm(6, **options).train(training)
    parameters = linear_parameters((2, 6, 4, 5), 3)
    assert_close(
        run(norm_relu_linear, norm, image((2, 6, 4, 5)), *parameters),
        run(plain_linear, norm, image((2, 6, 4, 5)), *parameters),
        TOLERANCE[torch.float64],
    )


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training):
    norm = make_norm(3).double().train(training)
    x = image((2, 3, 5, 4)).requires_grad_()
    parameters = [
        t.requires_grad_() for t in linear_parameters((2, 3, 5, 4), 2)
    ]

    def linear(x, gamma, beta, *parameters):
        values = {"weight": gamma, "bias": beta}
        return torch.func.functional_call(
            _Call(norm, norm_relu_linear), values_of(values), (x, *parameters)
        )

    def pooled(x, gamma, beta):
        values = {"weight": gamma, "bias": beta}
        return torch.func.functional_call(
            _Call(norm, lambda x, norm: norm_relu(x, norm, 2)),
            values_of(values),
            (x,),
        )

    both = [p.detach().clone().requires_grad_() for p in norm.parameters()]
    assert torch.autograd.gradcheck(linear, (x, *both, *parameters))
    assert torch.autograd.gradcheck(pooled, (x, *both))


class _Call(nn.Module):
    """A layer as a module, for functional_call."""

    def __init__(self, norm, layer):
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, x, *parameters):
        return self.layer(x, self.norm, *parameters)


def values_of(parameters):
    return {f"norm.{name}": value for name, value in parameters.items()}


@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_saved_is_the_input(autocast):
    norm = make_norm(64)
    x = image((4, 64, 12, 12), torch.float32).requires_grad_()
    weights = [torch.randn(9, 64, 1, 1, requires_grad=True) for _ in range(3)]
    saved = []
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
        torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.append(t) or t, lambda t: t
        ),
    ):
        y = norm_relu(x, norm, 2)
        for pool in (1, 2):
            norm_relu_linear(x, norm, weights, None, pool=pool)
    large = {t.data_ptr() for t in saved if t.numel() > 8 * 64}
    assert large == {t.data_ptr() for t in (x, *weights)}
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pool", [1, 2])
def test_every_number_of_threads_gives_the_same_bits(pool):
    norm = make_norm(20)
    x = image((9, 20, 15, 11), torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(
                run(lambda x, norm: norm_relu(x, norm, pool), norm, x)
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_any_strides():
    norm = make_norm(10)
    wide = image((2, 30, 8, 12), torch.float64)
    x = wide[:, ::3, 1:8, ::2]
    dense = x.contiguous()
    layer = lambda x, norm: norm_relu(x, norm, 2)  # noqa: E731
    results = [layer(t, copy.deepcopy(norm)) for t in (x, dense)]
    assert torch.equal(*results)


def test_not_a_number_is_handed_on():
    norm = make_norm(4).eval()
    x = image((1, 4, 4, 4), torch.float32)
    x[0, 1, 2, 3] = torch.nan
    for pool in (1, 2):
        y = norm_relu(x, norm, pool)
        assert torch.equal(y.isnan(), plain(pool)(x, norm).isnan())
        assert y.isnan().sum() == 1


def test_no_image_gives_none():
    norm = make_norm(4).eval()
    assert norm_relu(torch.empty(0, 4, 6, 6), norm, 2).shape == (0, 4, 3, 3)
    y = norm_relu_linear(
        torch.empty(0, 4, 6, 6), norm, torch.ones(2, 4), None, None
    )
    assert y.shape == (0, 2, 6, 6)


def test_works_when_compiled_and_in_autocast():
    norm = make_norm(8)
    x = image((2, 8, 6, 6), torch.float32)
    weight, bias, residual = linear_parameters(x.shape, 4, torch.float32)

    def layer(x, norm):
        y = norm_relu_linear(x, norm, weight, bias, residual)
        return norm_relu(y, copy_of[4], 2)

    copy_of = {4: make_norm(4)}
    expected = run(layer, norm, x)
    copy_of = {4: make_norm(4)}
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(run(compiled, norm, x), expected, 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = norm_relu_linear(x, make_norm(8), weight, bias)
    full = norm_relu_linear(x, make_norm(8), weight, bias)
    assert half.dtype == torch.bfloat16
    assert_close([half], [full], TOLERANCE[torch.bfloat16])


def test_errors_name_the_rule():
    norm = nn.BatchNorm2d(4)
    x = torch.ones(2, 4, 3, 3)
    with pytest.raises(ValueError, match="pool must be 1 or 2, got 3"):
        norm_relu(x, norm, 3)
    with pytest.raises(ValueError, match="linear: pool must be 1 or 2, got 0"):
        norm_relu_linear(x, norm, torch.ones(2, 4), None, pool=0)
    with pytest.raises(ValueError, match=r"x must be a tensor .* got \[4, 3\]"):
        norm_relu(torch.ones(4, 3), norm)
    with pytest.raises(ValueError, match="norm must have the 4 channels"):
        norm_relu(x, nn.BatchNorm2d(5))
    with pytest.raises(
        ValueError, match="x must be on the CPU or CUDA, got meta"
    ):
        norm_relu(x.to("meta"), norm)
    with pytest.raises(ValueError, match="weight must have the 4 channels"):
        norm_relu_linear(x, norm, torch.ones(2, 5), None)
    with pytest.raises(ValueError, match=r"must have the \[2\] .* got \[3\]"):
        norm_relu_linear(x, norm, torch.ones(2, 4), torch.ones(3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_relu(x[:1, :, :1, :1], norm)
    with pytest.raises(NotImplementedError, match="differentiated again"):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(
            norm_relu(x, norm).sum(), x, create_graph=True
        )
        grad.sum().backward()


def test_opcheck():
    norm = san.ops.norm_relu_core.Norm(
        *(torch.rand(3) + 0.5 for _ in range(4)), torch.tensor(0.1), 1e-5, ""
    )
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.san.norm_relu.default, (x, *norm, 2))
    several_lists = (
        [torch.randn(2, 3, requires_grad=True), torch.randn(1, 3)],
        [torch.randn(2), torch.randn(1, requires_grad=True)],
    )
    torch.library.opcheck(
        torch.ops.san.norm_relu_linear.default,
        (x, *norm, 2, *several_lists, torch.float32, None),
    )
    torch.library.opcheck(torch.ops.san.channel_moments.default, (x.detach(),))


def test_moments_do_not_cancel():
    x = torch.randn(3, 6, 8, 9, dtype=torch.float64)
    offset = torch.tensor([0, 1, 10, 100, 1e3, 1e4]).view(1, 6, 1, 1)
    x = (x + offset).float()
    moments = Moments(1, *torch.ops.san.channel_moments(x))
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(moments.variance, variance, rtol=1e-5, atol=0)
