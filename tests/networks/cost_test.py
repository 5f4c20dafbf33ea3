import threading

import pytest
import torch
from torch import nn

import san

# Parameters and MACs of the paper's table, to the last digit.
COSTS = {
    "san10_pair": (10_531_848, 2_155_268_622),
    "san10_patch": (11_841_124, 1_865_421_568),
    "san15_pair": (14_065_436, 3_022_716_308),
    "san15_patch": (16_181_310, 2_582_850_560),
    "san19_pair": (17_596_156, 3_844_152_602),
    "san19_patch": (20_518_470, 3_258_984_704),
    "resnet26": (13_696_552, 2_361_448_960),
    "resnet38": (19_626_792, 3_241_686_528),
    "resnet50": (25_557_032, 4_121_924_096),
}


@pytest.mark.parametrize("name", COSTS)
def test_rows_of_the_main_table(name):
    parameters, macs = san.count_cost(san.create_model(name), (3, 224, 224))
    assert (parameters, macs) == COSTS[name]


@pytest.mark.parametrize(
    ("layer", "parameters", "macs"),
    [
        (nn.Conv2d(3, 4, 1), 16, 30 * (3 * 4 + 4)),
        (nn.Conv2d(3, 4, (3, 2), padding=1, bias=False), 72, 5 * 7 * 72),
        (nn.Conv2d(3, 6, 1, groups=3), 12, 30 * 6 * 2),
        (nn.BatchNorm2d(3), 6, 2 * 90),
        (nn.ReLU(), 0, 90),
        (nn.ReLU(inplace=True), 0, 90),
        (nn.MaxPool2d(2), 0, 90),
        (nn.AvgPool2d(2), 0, 90),
        (nn.AdaptiveAvgPool2d(1), 0, 90),
        (nn.AdaptiveAvgPool2d(2), 0, 90),
        (nn.Softmax(1), 0, 0),
        (nn.Sequential(nn.Flatten(), nn.Linear(90, 2)), 182, 180),
        (nn.Sequential(nn.Flatten(), nn.Linear(90, 2, False)), 180, 180),
    ],
)
def test_layers_by_hand(layer, parameters, macs):
    assert san.count_cost(layer, (3, 5, 6)) == (parameters, macs)


class Relation(nn.Module):
    def forward(self, x):
        relation = san.ops.subtraction(x, 3, padding=1)
        relation = relation + san.ops.subtraction2(x, x, 3, padding=1)
        return san.ops.aggregation(x, relation, 3, padding=1)


def test_operators_by_hand():
    taps = 9 * 3 * 30
    assert san.count_cost(Relation(), (3, 5, 6)) == (0, 3 * taps)


class Products(nn.Module):
    def __init__(self, num_groups):
        super().__init__()
        self.num_groups = num_groups

    def forward(self, x):
        return san.ops.correlation(x, x, self.num_groups, 3, padding=1)


def test_what_the_published_count_leaves_out():
    taps = 9 * 3 * 30
    channel_by_channel = san.count_cost(Products(3), (3, 5, 6))
    assert channel_by_channel == (0, taps)
    assert channel_by_channel.honest_macs == taps
    summed = san.count_cost(Products(1), (3, 5, 6))
    assert summed == (0, 0)
    assert summed.honest_macs == taps
    standard = san.count_cost(san.PatchwiseAttention(32, 3), (32, 5, 6))
    assert standard.honest_macs == standard.macs
    parameters, macs = standard
    assert (parameters, macs) == (standard.parameters, standard.macs)


def test_the_model_stays_as_it_is():
    model = san.create_model("san10_pair", num_classes=3)
    model.layer1.eval()
    model.fc.weight.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    parameters = list(map(id, model.parameters()))
    first = san.count_cost(model, (3, 64, 64))
    assert [module.training for module in model.modules()] == modes
    assert list(map(id, model.parameters())) == parameters
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert san.count_cost(model, (3, 64, 64)) == first


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_dtype_and_device(dtype):
    model = san.create_model("san10_patch")
    expected = san.count_cost(model, (3, 32, 48))
    assert san.count_cost(model.to(dtype), (3, 32, 48)) == expected
    assert san.count_cost(model.to("meta"), (3, 32, 48)) == expected


def test_a_model_that_fails_half_way_stays_as_it_is():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.norm(x)
            raise RuntimeError("half way\nand more")

    model = Fails()
    with pytest.raises(
        ValueError, match=r"got RuntimeError: half way$"
    ) as caught:
        san.count_cost(model, (3, 4, 4))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert model.calls == 0
    assert model.norm.num_batches_tracked == 0
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "input_size",
    [(224, 224), (1, 3, 8, 8), (3, 0, 8), 224, "3x8", (3, 8.0, 8), None],
)
def test_input_size_is_checked(input_size):
    with pytest.raises(ValueError, match="count_cost: input_size must be"):
        san.count_cost(nn.ReLU(), input_size)


def test_the_model_is_checked():
    with pytest.raises(ValueError, match="count_cost: model must be a torch"):
        san.count_cost(torch.relu, (3, 4, 4))


@pytest.mark.parametrize("backend", ["fused", "unfused", "reference"])
def test_the_backend_changes_nothing(backend):
    model = san.create_model("san10_pair")
    san.set_attention_backend(backend)
    try:
        cost = san.count_cost(model, (3, 224, 224))
        assert san.attention_backend() == backend
    finally:
        san.set_attention_backend()
    assert cost == (10_531_848, 2_155_268_622)


def test_counting_beside_inference():
    model = san.create_model("san10_pair", num_classes=3).eval()
    images = torch.randn(1, 3, 32, 32)
    expected = model(images)
    cost = san.count_cost(model, (3, 32, 32))
    stop, costs = threading.Event(), []

    def count():
        while not stop.is_set():
            costs.append(san.count_cost(model, (3, 32, 32)))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        while len(costs) < 3:
            assert torch.equal(model(images), expected)
            assert san.attention_backend() == "fastest"
    finally:
        stop.set()
        thread.join()
    assert set(costs) == {cost}


def small_san(attention):
    return san.SAN(attention, [1], kernel_sizes=[3], widths=[32], num_classes=5)


def test_a_pairwise_network_before_and_after_folding():
    model = small_san(san.PairwiseAttention).eval()
    before = san.count_cost(model, (3, 8, 8)).macs
    after = san.count_cost(san.fold_for_inference(model), (3, 8, 8)).macs
    # On 8 x 8 pixels 32 channels, on 4 x 4 the block: R = 2, M = 8, G = 1.
    gone = 32 * 64  # The norm of the stem has become the bias: 1, not 2.
    gone += 2 * 8 * 16  # bn2 is part of conv3.
    # A linear layer's bias costs nothing: those of the block's convolutions.
    gone += (32 + 2 + 2 + 8) * 16
    taps = 9 * 16
    # At every tap: the positions, their norm and ReLU, their 2 R products,
    # half the hidden norm (the table is its bias), the bias of the weights.
    gone += taps * (2 + 2 * 2 + 2 + 2 * 2 + 2 + 1)
    gone += 16 * (4 + 2)  # conv_p.
    table = 9 * (4 + 2 * 2) + 9 * 2  # Products, ReLU.
    assert before - after == gone - table


def test_a_patchwise_network_before_and_after_folding():
    model = small_san(san.PatchwiseAttention).eval()
    before = san.count_cost(model, (3, 8, 8)).macs
    after = san.count_cost(san.fold_for_inference(model), (3, 8, 8)).macs
    gone = 32 * 64  # The norm of the stem has become the bias: 1, not 2.
    gone += 2 * 8 * 16  # bn2 is part of conv3 and an addition.
    # A linear layer's bias costs nothing: those of the block's convolutions.
    gone += (32 + 2 + 2 + 8) * 16
    gone += 2 * 1 * 16  # The hidden norm is part of its convolution.
    assert before - after == gone


def test_a_resnet_before_and_after_folding():
    model = san.create_model("resnet26").eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    elements = []
    hooks = [
        norm.register_forward_hook(lambda *a: elements.append(a[2].numel()))
        for norm in norms
    ]
    model(torch.randn(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    before = san.count_cost(model, (3, 64, 64)).macs
    after = san.count_cost(san.fold_for_inference(model), (3, 64, 64)).macs
    assert before - after == sum(elements)  # 2 of a norm, 1 of a bias.


def test_fused_operators_by_hand():
    class Calls(nn.Module):
        def __init__(self, call):
            super().__init__()
            self.forward = call

    ones, eps = torch.ones(4), (1e-5, "")

    def macs(call):
        return san.count_cost(Calls(call), (4, 6, 6)).macs

    ops, norm = torch.ops.san, (ones, ones, ones, ones, ones[0], *eps)
    assert macs(lambda x: ops.affine_relu(x, ones, ones, 1)) == 3 * 144
    assert macs(lambda x: ops.affine_relu(x, ones, ones, 2)) == 4 * 144
    assert macs(lambda x: ops.norm_relu(x, *norm, 2)) == 4 * 144
    weight, bias = [torch.ones(5, 4), torch.ones(2, 4)], [ones[:1].expand(5)]
    bias.append(ones[:2])

    def linear(pool):
        inputs = *norm, pool, weight, bias, torch.float32, None
        return macs(lambda x: ops.norm_relu_linear(x, *inputs))

    assert linear(1) == 3 * 144 + 36 * 7 * 5
    assert linear(2) == 4 * 144 + 9 * 7 * 5
    assert macs(lambda x: ops.stem(x, torch.ones(3, 4), ones[:3])) == 36 * (
        12 + 3 * 3
    )
    # R = 1, M = 2, G = 1, 9 taps.
    one, table = ones[:1], torch.ones(9, 1)
    square = torch.ones(1, 1)
    assert macs(
        lambda x: ops.pairwise_core(x, one, one, table, square, square, 3)
    ) == 9 * 36 * (6 + 1 + 1 + 2)
    # R = 4, 9 taps, G = 2.
    relation = torch.ones(1, 40, 1, 1)
    assert macs(
        lambda x: ops.patchwise_hidden(
            x, x, relation, relation, torch.ones(2, 40, 1, 1), 3
        )
    ) == 36 * (3 * 40 + 80)
    # G = 4, C = 4, 9 taps.
    assert macs(
        lambda x: ops.patchwise_core(
            x, x, torch.ones(4, 3, 3, 4), torch.ones(1, 4, 3, 3)
        )
    ) == 36 * (4 * 9 * 4 + 36 + 4 * 9)
