"""Where a network has to work, changed or not: compiled, exported, sharded.

What is fused at all is in rule_test.
"""

import threading

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import san
from tests.fusion.networks import ATTENTIONS, images, network


def hooked(model):
    model.layer1[0].sam.conv_w.register_forward_hook(
        lambda module, args, output: output * 0.5
    )
    return model


def activated(model):
    model.layer1[0].relu = nn.GELU()
    return model


@pytest.mark.parametrize(
    ("kind", "change"), [("pair", hooked), ("patch", activated)]
)
def test_compiles_into_one_graph(kind, change):
    model, x = change(network(kind)).eval(), images()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = model(x)
        assert not torch.allclose(network(kind).eval()(x), expected)
        torch.testing.assert_close(compiled(x), expected)


def test_a_backend_that_a_thread_chooses_for_the_first_time():
    """Compiled before the thread has ever had a backend of its own."""
    model, x = network("pair").eval(), images()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    outputs = []

    def compute():
        with torch.no_grad():
            outputs.append(compiled(x))
            with san.use_attention_backend("reference"):
                outputs.append(compiled(x))

    torch.compiler.reset()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    first, second = outputs
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second)


def test_compiles_again_for_another_layer_or_backend():
    model, x = network("pair").eval(), images()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        first = compiled(x)
        with san.use_attention_backend("reference"):
            assert not torch.equal(compiled(x), first)
        activated(model)
        torch.testing.assert_close(compiled(x), model(x))
        assert not torch.allclose(compiled(x), first)


@pytest.mark.parametrize(
    ("kind", "change"), [("pair", activated), ("patch", lambda model: model)]
)
def test_exports_and_saves(kind, change, tmp_path):
    model, x = change(network(kind)).eval(), images()
    auto = torch.export.Dim.AUTO
    with torch.no_grad():
        exported = torch.export.export(
            model, (x,), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
        )
        torch.export.save(exported, tmp_path / "model.pt2")
        again = torch.export.load(tmp_path / "model.pt2").module()
        other = torch.randn(2, 3, 24, 17, dtype=torch.float64)
        torch.testing.assert_close(again(other), model(other))
    assert "san.norm_relu_linear" in str(exported.graph)


def test_exports_for_training():
    batch = torch.export.Dim("batch", min=2, max=64)
    model = network("pair")
    exported = torch.export.export(
        model, (images(),), dynamic_shapes=({0: batch},)
    )
    torch.testing.assert_close(
        exported.module()(images(5)), network("pair")(images(5))
    )


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_gradient_checkpointing(kind):
    model, x = hooked(network(kind)), images()
    model(x).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model = hooked(network(kind))
    for index, block in enumerate(model.layer1):
        model.layer1[index] = Checkpointed(block)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        plain = name.replace(".block", "")
        torch.testing.assert_close(parameter.grad, expected[plain])


class Checkpointed(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def each_convolution(model):
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            fully_shard(module)
    fully_shard(model)


def each_bottleneck(model):
    for block in (*model.layer0, *model.layer1):
        fully_shard(block)
    fully_shard(model)


def each_attention(model):
    for block in (*model.layer0, *model.layer1):
        fully_shard(block.sam)
    fully_shard(model)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "shard", [fully_shard, each_bottleneck, each_attention, each_convolution]
)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_sharded_parameters(kind, shard):
    x = images()
    expected = network(kind)
    expected(x).square().sum().backward()
    model = network(kind)
    shard(model)
    model(x).square().sum().backward()
    gradients = {n: p.grad.full_tensor() for n, p in model.named_parameters()}
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel_of_a_changed_network():
    x = images()
    expected = hooked(network("pair"))
    expected(x).square().sum().backward()
    parallel = nn.parallel.DistributedDataParallel(hooked(network("pair")))
    parallel(x).square().sum().backward()
    for name, parameter in expected.named_parameters():
        got = parallel.module.get_parameter(name).grad
        torch.testing.assert_close(got, parameter.grad)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_flop_counters_see_the_same_on_every_path(kind):
    model = network(kind).eval()

    def count(network, backend):
        with (
            san.use_attention_backend(backend),
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            network(images())
        return counter.get_total_flops()

    expected = count(model, "unfused")
    assert count(model, "fused") == expected
    assert count(model, "reference") == expected
    folded = san.fold_for_inference(model)
    assert abs(count(folded, "fused") - expected) < 0.05 * expected
