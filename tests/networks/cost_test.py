import pytest
import torch
from torch import nn

import san

# Parameters and MACs of the paper's table, to the last digit.
SAN_COSTS = {
    "san10_pair": (10_531_848, 2_155_268_622),
    "san10_patch": (11_841_124, 1_865_421_568),
    "san15_pair": (14_065_436, 3_022_716_308),
    "san15_patch": (16_181_310, 2_582_850_560),
    "san19_pair": (17_596_156, 3_844_152_602),
    "san19_patch": (20_518_470, 3_258_984_704),
}
# Parameters, and MACs as the paper rounds them.
RESNET_COSTS = {
    "resnet26": (13_696_552, 2.4),
    "resnet38": (19_626_792, 3.2),
    "resnet50": (25_557_032, 4.1),
}


@pytest.mark.parametrize("name", SAN_COSTS)
def test_rows_of_the_self_attention_networks(name):
    model = san.create_model(name)
    assert san.count_cost(model, (3, 224, 224)) == SAN_COSTS[name]


@pytest.mark.parametrize("name", RESNET_COSTS)
def test_rows_of_the_baselines(name):
    parameters, macs = san.count_cost(san.create_model(name), (3, 224, 224))
    assert (parameters, round(macs / 1e9, 1)) == RESNET_COSTS[name]


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


def test_a_fault_of_the_model_leaves_its_mode():
    model = san.create_model("resnet26")
    with pytest.raises(RuntimeError):
        san.count_cost(model, (4, 64, 64))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("input_size", [(224, 224), (1, 3, 8, 8), (3, 0, 8)])
def test_input_size_is_checked(input_size):
    with pytest.raises(ValueError, match="count_cost: input_size must be"):
        san.count_cost(nn.ReLU(), input_size)


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
