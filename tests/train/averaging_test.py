import copy

import pytest
import torch
from torch import nn

from train.averaging import averaged


def network():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def changed(model, seed):
    """Other weights and statistics in the same network."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator))
            else:
                tensor += 1
    return copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_the_average_by_hand(decay):
    model = network()
    average = averaged(model, decay)
    expected = changed(model, 0)
    average.update_parameters(model)
    for step in range(1, 5):
        values = changed(model, step)
        average.update_parameters(model)
        now = min(decay, (1 + step) / (10 + step))
        for name, value in values.items():
            if value.is_floating_point():
                value = now * expected[name] + (1 - now) * value
            expected[name] = value
    torch.testing.assert_close(average.module.state_dict(), expected)


def test_it_goes_on_from_its_state():
    model = network()
    whole = averaged(model, 0.9)
    for step in range(3):
        changed(model, step)
        whole.update_parameters(model)
    resumed = averaged(network(), 0.9)
    resumed.load_state_dict(whole.state_dict())
    changed(model, 3)
    for average in (whole, resumed):
        average.update_parameters(model)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
