"""How attention blocks are composed: sizes, ratios, names, errors."""

import numpy as np
import pytest
import torch
from torch import nn

import san
from san.attention.mappings import create_mapping

BLOCKS = [san.PairwiseAttention, san.PatchwiseAttention]


@pytest.mark.parametrize("block", BLOCKS)
def test_names_are_the_published_ones(block):
    names = block(64, 3).state_dict()
    parts = {name.split(".")[0] for name in names}
    expected = {"conv1", "conv2", "conv3", "conv_w"}
    if block is san.PairwiseAttention:
        expected.add("conv_p")
    assert parts == expected


@pytest.mark.parametrize("backend", ["fused", "unfused", "reference"])
@pytest.mark.parametrize("block", BLOCKS)
def test_other_ratios(block, backend):
    torch.manual_seed(0)
    model = block(
        48, 3, relation_ratio=4, output_ratio=2, channels_per_weight=3
    ).double()
    assert model.relation_channels == 12
    assert model.out_channels == 24
    assert model.weight_channels == 8
    assert san.why_unfused(model) == []
    x = torch.randn(2, 48, 5, 4, dtype=torch.float64)
    with san.use_attention_backend("reference"):
        expected = model(x)
    with san.use_attention_backend(backend):
        torch.testing.assert_close(model(x), expected)
    assert expected.shape == (2, 24, 5, 4)


@pytest.mark.parametrize("block", BLOCKS)
def test_integers_of_numpy(block):
    model = block(np.int64(64), np.int32(3))
    assert type(model.kernel_size) is int
    x = torch.randn(1, 64, 5, 5)
    for backend in ("fused", "unfused", "reference"):
        with san.use_attention_backend(backend):
            assert model(x).shape == (1, 16, 5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((48, 3), "channels must be a multiple of 32, got 48"),
        ((64, 4), "kernel_size must be a positive odd number, got 4"),
        ((64, -3), "kernel_size must be a positive odd number, got -3"),
        ((64.0, 3), "channels must be a positive integer, got 64.0"),
        ((64, True), "kernel_size must be a positive integer, got True"),
        ((64, "3"), "kernel_size must be a positive integer, got '3'"),
    ],
)
@pytest.mark.parametrize("block", BLOCKS)
def test_sizes_are_checked(block, arguments, message):
    with pytest.raises(ValueError, match=f"^{block.__name__}: {message}"):
        block(*arguments)


@pytest.mark.parametrize(
    "name", ["relation_ratio", "output_ratio", "channels_per_weight"]
)
def test_ratios_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
        san.PairwiseAttention(64, 3, **{name: 0})


@pytest.mark.parametrize("widths", [(6, 2), (6, 4, 2), (6, 5, 4, 2)])
def test_mappings_of_any_depth(widths):
    mapping = create_mapping(widths)
    assert mapping.num_layers == len(widths) - 1
    assert [norm.num_features for norm in mapping.norms] == list(widths[:-1])
    matrices = mapping.matrices
    assert [m.out_channels for m in matrices] == list(widths[1:])
    has_bias = [m.bias is not None for m in matrices]
    assert has_bias == [False] * (len(widths) - 2) + [True]
    assert mapping(torch.randn(2, 6, 3, 3)).shape == (2, 2, 3, 3)
    assert isinstance(mapping[:2], nn.Sequential)
