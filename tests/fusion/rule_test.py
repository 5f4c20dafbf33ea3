"""What is fused where, and what is said of it.

Where else that has to work is in compiled_and_sharded_test.
"""

import asyncio
import threading
import types
from collections import Counter

import pytest
import torch
from torch import nn

import san
from san.networks.san import Bottleneck
from tests.fusion.networks import ATTENTIONS, images, network

FUSED = {"stem", "norm_relu", "norm_relu_linear", "pairwise_core"}


def operators(model, x):
    """How often each registered operator ran."""
    with torch.profiler.profile() as profile, torch.no_grad():
        model(x)
    names = [event.name for event in profile.events()]
    return Counter(n.removeprefix("san::") for n in names if "san::" in n)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_published_network_is_fused(kind):
    model = network(kind).eval()
    core = {"pair": {"pairwise_core": 3}, "patch": {"patchwise_core": 3}}
    seen = operators(model, images())
    assert seen["stem"] == 1
    assert seen["norm_relu"] == 1
    assert seen["norm_relu_linear"] == 7
    assert core[kind].items() <= seen.items()
    assert not seen["aggregation"]
    assert san.why_unfused(model) == san.why_unfused(model, images()) == []


def test_one_block_that_is_changed_leaves_its_neighbours_fused():
    model = network("pair").eval()
    model.layer1[0].sam.conv_w.register_forward_hook(lambda *a: None)
    seen = operators(model, images())
    assert seen["pairwise_core"] == 2
    assert seen["aggregation"] == 1
    assert seen["norm_relu_linear"] == 6  # The block's way out is one.
    assert seen["norm_relu"] == 2  # Its way in calls the attention block.
    model = network("pair").eval()
    model.layer1[0].sam.conv1.register_forward_hook(lambda *a: None)
    seen = operators(model, images())
    assert seen["pairwise_core"] == 3


CHANGES = {
    "layer1.1: sam.conv1 has a forward hook": lambda m: m.layer1[
        1
    ].sam.conv1.register_forward_hook(lambda *a: None),
    "layer1.1: bn2 has a forward pre-hook": lambda m: m.layer1[
        1
    ].bn2.register_forward_pre_hook(lambda *a: None),
    "layer0.0: sam has a backward hook": lambda m: m.layer0[
        0
    ].sam.register_full_backward_hook(lambda *a: None),
    "layer0.0.sam: conv_w.1 is a Tanh, not a ReLU": lambda m: m.layer0[
        0
    ].sam.conv_w.__setitem__(1, nn.Tanh()),
    "conv1 is a ParametrizedConv2d, not a Conv2d": lambda m: (
        nn.utils.parametrizations.weight_norm(m.conv1)
    ),
    "pool is a AvgPool2d, not a MaxPool2d": lambda m: setattr(
        m, "pool", nn.AvgPool2d(2)
    ),
    "bn_in.weight is torch.float32, the images are torch.float64": lambda m: (
        m.bn_in.float()
    ),
    "layer1.0: sam is a Identity": lambda m: setattr(
        m.layer1[0], "sam", nn.Identity()
    ),
    "conv_in has a bias": lambda m: setattr(
        m, "conv_in", nn.Conv2d(3, 64, 1).double()
    ),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_says_why_in_words(reason):
    model = network("pair")
    CHANGES[reason](model)
    assert reason in san.why_unfused(model, images())
    if "." in reason.partition(":")[0] and ".sam:" not in reason:
        assert reason.partition(": ")[2] in repr(model)


def test_says_one_thing_of_a_whole_network():
    model, x = network("pair"), images()

    def said(of=x):
        return san.why_unfused(model, of)

    start = "the whole network: "
    with san.use_attention_backend("unfused"):
        assert said() == [f"{start}the attention backend is 'unfused'"]
    handle = nn.modules.module.register_module_forward_hook(lambda *a: None)
    assert said() == [f"{start}a hook on all modules is registered"]
    handle.remove()
    assert said(x.to("meta")) == [f"{start}tensors are on meta"]
    assert said(x.int()) == [f"{start}tensors are torch.int32"]
    assert said(x.to_sparse()) == [f"{start}tensors are not dense"]
    inside = []
    torch.func.vmap(lambda i: inside.append(said(i)) or i)(x)
    assert inside == [[f"{start}a transform of torch.func is active"]]
    assert said() == []
    assert san.why_unfused(nn.Linear(2, 2)) == []
    assert san.why_unfused(nn.Sequential(nn.ReLU(), model)) == []


class OwnForward(Bottleneck):
    def forward(self, x):
        return x + self.conv(self.sam(x))


def test_says_that_a_forward_is_somebodys_own():
    model = network("pair")
    model.layer1[0] = OwnForward(san.PairwiseAttention, 128, 7).double()
    reason = "OwnForward has a forward of its own"
    assert f"layer1.0: {reason}" in san.why_unfused(model)
    assert reason in repr(model)
    model = network("pair")
    model.forward = types.MethodType(lambda self, x: x, model)
    assert "SAN has a forward of its own" in san.why_unfused(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("san10_pair",), "model must be a module, got str"),
        ((nn.ReLU(), [1]), "images must be a tensor, got list"),
    ],
)
def test_what_it_cannot_say_anything_of(arguments, message):
    with pytest.raises(ValueError, match=f"^why_unfused: {message}$"):
        san.why_unfused(*arguments)


class Marked(torch.Tensor):
    """A tensor of a type that the kernels do not know."""


def test_a_tensor_of_another_type():
    model = network("pair").eval()
    x = images().as_subclass(Marked)
    assert san.why_unfused(model, x) == [
        "the whole network: tensors are of type Marked"
    ]
    with torch.no_grad():
        got = model(x)
        assert isinstance(got, Marked)
        torch.testing.assert_close(
            got.as_subclass(torch.Tensor), model(images())
        )


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_hooks_on_all_modules_see_all_of_them(kind):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(type(module).__name__)
    )
    try:
        model = network(kind).eval()
        model(images())
        fused, seen[:] = list(seen), []
        with san.use_attention_backend("reference"):
            model(images())
    finally:
        handle.remove()
    assert fused == seen
    assert len(seen) > 60


def test_threads_with_a_backend_of_their_own():
    model, x = network("patch").eval(), images()
    names = ("fused", "unfused", "reference")
    expected, got = {}, {name: [] for name in names}
    for name in names:
        with san.use_attention_backend(name), torch.no_grad():
            expected[name] = model(x)
    assert len({float(y.sum()) for y in expected.values()}) > 1
    barrier = threading.Barrier(3)

    def work(name):
        barrier.wait()
        for _ in range(10):
            with san.use_attention_backend(name), torch.no_grad():
                got[name].append((san.attention_backend(), model(x)))

    threads = [threading.Thread(target=work, args=(n,)) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert len(got[name]) == 10
        for backend, y in got[name]:
            assert backend == name
            assert torch.equal(y, expected[name])
    assert san.attention_backend() == "fastest"


def test_tasks_with_a_backend_of_their_own():
    compiled = torch.compile(
        lambda x: x + (san.attention_backend() == "fastest"), backend="eager"
    )

    async def task(name, start, end):
        await asyncio.sleep(start)
        with san.use_attention_backend(name):
            await asyncio.sleep(end - start)
            assert san.attention_backend() == name

    async def overlapping():
        await asyncio.gather(
            task("reference", 0, 0.02), task("unfused", 0.01, 0.04)
        )

    asyncio.run(overlapping())
    assert san.attention_backend() == "fastest"
    assert compiled(torch.zeros(())) == 1


def test_a_backend_that_is_none():
    with (
        pytest.raises(
            ValueError,
            match=r"^use_attention_backend: name must be one of fastest, "
            r"fused, unfused, reference, got 'fast'",
        ),
        san.use_attention_backend("fast"),
    ):
        pass
