import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import san
from eval.footprints import collect, sheet, viewer

BLOCKS = ["layer0.0.sam", "layer1.0.sam"]


def network(attention=san.PairwiseAttention):
    torch.manual_seed(0)
    return san.SAN(attention, (1, 1), (3, 5), (32, 128), num_classes=3)


@pytest.mark.parametrize(
    ("max_groups", "groups"), [(1, [0]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])]
)
def test_some_groups_and_the_mean_of_all(max_groups, groups):
    model, image = network(), torch.randn(1, 3, 16, 24)
    first, second = collect.of_image(model, image, BLOCKS, max_groups)
    assert (first.block, second.block) == tuple(BLOCKS)
    # One group alone is the mean.
    assert (first.groups, second.groups) == ([], groups)
    assert (second.num_groups, second.side) == (4, 5)
    (expected,) = san.attention_weights(model, image, BLOCKS[1])
    torch.testing.assert_close(second.weights[0], expected.mean(0))
    torch.testing.assert_close(second.weights[1:], expected[groups])


def test_the_mean_is_over_pixels_and_images():
    model = network()
    images = torch.randn(5, 3, 16, 24)
    batches = [(part, None) for part in images.split(2)]
    means = collect.mean_over(model, batches)
    assert list(means) == BLOCKS
    for block, found in means.items():
        weights = san.attention_weights(model, images, block).double()
        torch.testing.assert_close(found, weights.mean((0, 4, 5)))


def test_nothing_to_look_at():
    with pytest.raises(ValueError, match="must hold images"):
        collect.mean_over(network(), [])
    with pytest.raises(ValueError, match="attention blocks, got a Linear"):
        collect.mean_over(torch.nn.Linear(2, 2), [])


@pytest.mark.parametrize(
    "attention", [san.PairwiseAttention, san.PatchwiseAttention]
)
def test_a_contact_sheet_has_a_row_for_each_block(attention):
    images = torch.randn(2, 3, 16, 24)
    means = collect.mean_over(network(attention), [(images, None)])
    picture = Image.open(io.BytesIO(sheet.contact_sheet(means, "a title")))
    pixels = np.asarray(picture.convert("RGB"), int)
    colours = np.abs(pixels - pixels[..., :1]).sum(-1) > 30
    # Columns of colour: four groups, of which the first block has one.
    rows = np.flatnonzero(colours.any(1))
    gap = int(np.argmax(np.diff(rows) > 5))
    upper, lower = colours[: rows[gap] + 1], colours[rows[gap + 1] :]
    assert upper.any(0).sum() * 3 < lower.any(0).sum()


def blocks_of(page):
    return json.loads(re.search(r"const blocks = (.*);\n", page)[1])


@pytest.mark.parametrize(
    "attention", [san.PairwiseAttention, san.PatchwiseAttention]
)
def test_the_page_holds_the_weights(attention):
    model, image = network(attention), torch.randn(1, 3, 16, 24)
    footprints = collect.of_image(model, image, BLOCKS, 2)
    pixels = np.zeros((16, 24, 3), np.uint8)
    page = viewer.page(pixels, footprints, "</script><b>&")
    assert (
        "</script><b>" not in page and "&lt;/script&gt;&lt;b&gt;&amp;" in page
    )
    for found, one in zip(blocks_of(page), footprints, strict=True):
        levels = np.frombuffer(base64.b64decode(found["levels"]), "<i2")
        values = levels.reshape(one.weights.shape) * np.array(
            found["scales"]
        ).reshape(-1, 1, 1, 1, 1)
        largest = one.weights.abs().max()
        np.testing.assert_allclose(
            values, one.weights, atol=float(largest) / 60_000
        )
        assert (found["height"], found["width"]) == one.weights.shape[-2:]
    assert "http" not in page
