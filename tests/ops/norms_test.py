"""Norms by their own forward and by the operators' statistics agree."""

import copy

import pytest
import torch
from torch import nn

import san
from san import norms
from tests.ops.norms import TOLERANCE, assert_close, image, make_norm, plain

# What a norm can be; attributes set later.
NORMS = {
    "plain": {},
    "cumulative": {"momentum": None},
    "still": {"momentum": 0.0},
    "not counting": {"num_batches_tracked": None},
    "never moving": {"num_batches_tracked": None, "momentum": None},
    "no longer tracking": {"track_running_stats": False},
    "without statistics": {"running_mean": None, "running_var": None},
    "without weight": {"weight": None},
    "without bias": {"bias": None},
    "without both": {"weight": None, "bias": None},
    "without both, still affine": {"weight": None, "bias": None, "affine": 1},
}


def norm_of(kind):
    norm = make_norm(5)
    for name, value in NORMS[kind].items():
        setattr(norm, name, value)
    return norm


def steps(layer, norm, x):
    """Outputs and gradients of two steps, and what the norm then holds."""
    norm = copy.deepcopy(norm)
    found = []
    for scale in (1, 2):
        leaf = (scale * x).requires_grad_()
        y = layer(leaf, norm)
        seed = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view(y.shape)
        leaves = [leaf, *norm.parameters()]
        found += [y, *torch.autograd.grad(y, leaves, seed)]
    return [*found, *norm.buffers()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_is_torchs(kind, training):
    norm = norm_of(kind).double().train(training)
    x = image((2, 5, 4, 3))
    for pool in (1, 2):

        def fused(x, norm, pool=pool):
            return san.ops.norm_relu(x, norm, pool)

        found = steps(fused, norm, x)
        assert_close(found, steps(plain(pool), norm, x), 1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_scale_and_shift_are_the_norms(kind, training):
    norm = norm_of(kind).double().train(training)

    def applied(x, norm):
        def moments():
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            return norms.Moments(x.numel() // 5, mean, variance)

        scale, shift = norms.scale_and_shift(norm, moments, x.dtype)
        return scale[:, None, None] * x + shift[:, None, None]

    x = image((2, 5, 4, 3))
    expected = steps(lambda x, norm: norm(x), norm, x)
    assert_close(steps(applied, norm, x), expected, TOLERANCE[x.dtype])


@pytest.mark.parametrize("kind", NORMS)
def test_an_empty_batch_leaves_all_as_it_was(kind):
    norm = norm_of(kind).double()
    x = torch.zeros(0, 5, 4, 4, dtype=torch.double)
    found = steps(san.ops.norm_relu, norm, x)
    expected = steps(plain(1), norm, x)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "attention", [san.PairwiseAttention, san.PatchwiseAttention]
)
@pytest.mark.parametrize("backend", ["fused", "unfused"])
def test_a_network_takes_an_empty_batch(attention, backend):
    model = san.SAN(attention, (1, 1), (3, 3), (32, 64), num_classes=5)
    before = copy.deepcopy(dict(model.named_buffers()))
    images = torch.zeros(0, 3, 8, 8, requires_grad=True)
    with san.use_attention_backend(backend):
        logits = model(images)
    logits.sum().backward()
    assert logits.shape == (0, 5) and images.grad.shape == images.shape
    assert not any(p.grad.any() for p in model.parameters())
    for name, buffer in model.named_buffers():
        counts = name.endswith("num_batches_tracked")
        assert torch.equal(buffer, before[name] + int(counts)), name


def test_errors_name_the_rule():
    norm = make_norm(5)
    x = image((1, 5, 1, 1), torch.float32)
    with pytest.raises(ValueError, match=r"^BatchNorm2d: input must .* got 1"):
        san.ops.norm_relu(x, norm)
    norm.running_var = None
    for training in (True, False):
        with pytest.raises(ValueError, match=r"running_var must both be None"):
            san.ops.norm_relu(x, norm.train(training))
    with pytest.raises(ValueError, match="at least 2 dimensions, got 1"):
        norms.SyncBatchNorm(5)(torch.ones(5))


@pytest.mark.parametrize(
    "kind", [nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm]
)
def test_every_kind_of_norm_is_synchronised(kind):
    norm = kind(4, affine=False, track_running_stats=False)
    found = norms.synchronize_batch_norm(norm)
    assert type(found) is norms.SyncBatchNorm
    assert not found.affine and not found.track_running_stats
    assert norms.synchronize_batch_norm(found) is found


def test_a_norm_keeps_its_own_group():
    first, second = object(), object()
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.SyncBatchNorm(4, process_group=first)
    )
    norms.synchronize_batch_norm(model, second)
    assert [norm.process_group for norm in model] == [second, first]


def test_sync_batch_norm_keeps_parameters_and_names():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4, eps=0.1, momentum=0.3)
    )
    before = model.state_dict(keep_vars=True)
    model.eval()
    converted = norms.synchronize_batch_norm(model)
    assert converted is model
    after = model.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    norm = model[1]
    assert isinstance(norm, norms.SyncBatchNorm)
    assert (norm.eps, norm.momentum, norm.training) == (0.1, 0.3, False)


def test_sync_batch_norm_keeps_hooks():
    calls = []
    norm = torch.nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda *a: calls.append("after"))
    norm.register_forward_pre_hook(lambda *a: calls.append("before"))
    norms.synchronize_batch_norm(norm)(torch.randn(2, 4, 3, 3))
    assert calls == ["before", "after"]


def test_sync_batch_norm_replaces_nothing_that_it_does_not_know():
    class Doubled(torch.nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model = torch.nn.Sequential(torch.nn.ReLU(), Doubled(4))
    message = "must be one of torch's, got Doubled with a forward of its own"
    with pytest.raises(ValueError, match=message):
        norms.synchronize_batch_norm(model)
    assert type(model[1]) is Doubled


def test_sync_batch_norm_of_a_norm_in_several_places():
    norm = torch.nn.BatchNorm2d(4)
    model = torch.nn.Sequential(norm, torch.nn.Sequential(norm), norm)
    norms.synchronize_batch_norm(model)
    assert type(model[0]) is norms.SyncBatchNorm
    assert model[0] is model[1][0] is model[2]


@pytest.mark.parametrize("kind", [torch.nn.LazyBatchNorm2d, "parametrized"])
def test_sync_batch_norm_leaves_a_model_whole_that_it_refuses(kind):
    if kind == "parametrized":
        other = torch.nn.BatchNorm2d(4)
        torch.nn.utils.parametrize.register_parametrization(
            other, "weight", torch.nn.Identity()
        )
    else:
        other = kind()
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(4), other)
    with pytest.raises(ValueError, match=r"got \w+BatchNorm2d; set Recipe"):
        norms.synchronize_batch_norm(model)
    assert type(model[0]) is torch.nn.BatchNorm2d


def test_sync_batch_norm_of_one_process_is_torchs():
    images = torch.randn(3, 4, 5, 2)
    ours = norms.synchronize_batch_norm(torch.nn.BatchNorm2d(4))
    theirs = torch.nn.BatchNorm2d(4)
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.running_var, theirs.running_var)
