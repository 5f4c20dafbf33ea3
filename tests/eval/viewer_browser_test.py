"""The page of footprints in a real browser: pointer, keys, choices.

Needs Debian's chromium, and runs by its name only; see browser_test.py.
"""

import numpy as np
import pytest
import torch

import san
from eval.footprints import collect, viewer
from tests.eval import browser

PROBE = """
await picture.decode();
const words = () => byId("words").textContent;
const seen = {first: words(), blocks: byId("block").options.length};
const box = image.getBoundingClientRect();
const move = (x, y) => image.dispatchEvent(new PointerEvent("pointermove",
  {clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
move(0.01, 0.99); seen.corner = words(); seen.cornerTaps = footprint();
const press = (key) => image.dispatchEvent(new KeyboardEvent("keydown", {key}));
for (const key of ["ArrowUp", "ArrowRight", "ArrowRight", "x"]) press(key);
seen.pressed = words(); seen.flags = byId("flags").textContent;
const pick = (id, value) => {
  byId(id).value = value; byId(id).dispatchEvent(new Event("change"));
};
pick("block", 1); seen.second = words();
pick("group", 2); seen.group = words(); seen.groupTaps = footprint();
seen.drawn = new Set(grid.getContext("2d").getImageData(0, 0, 352, 352).data
  .filter((value, i) => i % 4 === 3)).size;
seen.width = document.documentElement.scrollWidth;
seen.focusable = image.tabIndex;
return seen;
"""


@pytest.fixture(scope="module")
def footprints():
    torch.manual_seed(0)
    model = san.SAN(
        san.PatchwiseAttention, (1, 1), (3, 5), (32, 128), num_classes=3
    )
    image = torch.randn(1, 3, 24, 40)
    blocks = list(san.attention_blocks(model))
    return collect.of_image(model, image, blocks, 8)


@pytest.fixture(scope="module", params=[1100, 500])
def seen(request, footprints, tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    page = viewer.page(pixels, footprints, "a title")
    folder = tmp_path_factory.mktemp("page")
    probe, complaints = browser.see(page, PROBE, folder, request.param)
    return request.param, probe, complaints


def test_no_complaints_and_nothing_sticks_out(seen):
    width, probe, complaints = seen
    assert complaints == []
    assert probe["width"] <= width
    assert probe["focusable"] == 0
    assert probe["drawn"] > 3


def test_it_starts_in_the_middle(seen):
    _, probe, _ = seen
    assert probe["blocks"] == 2
    assert probe["first"].startswith(
        "layer0.0, 3 x 3 taps, group 1 of 1; row 7 of 12, column 11 of 20;"
    )


def test_pointer_and_keys_move_the_pixel(seen):
    _, probe, _ = seen
    assert "row 12 of 12, column 1 of 20;" in probe["corner"]
    assert "row 11 of 12, column 3 of 20;" in probe["pressed"]
    assert probe["flags"] == "--block=layer0.0 --pixel=10,2"


def test_the_weights_are_those_of_the_network(seen, footprints):
    _, probe, _ = seen
    first, second = footprints
    assert_taps(probe["cornerTaps"], first.weights[0, :, :, 11, 0])
    places = [(tap["row"], tap["column"]) for tap in probe["cornerTaps"]]
    # Mirrored at the lower left corner.
    assert places == [
        (row, column) for row in (10, 11, 10) for column in (1, 0, 1)
    ]
    # The same place in an image half as large; group 1 is the third choice.
    assert (
        "layer1.0, 5 x 5 taps, group 2 of 4; row 6 of 6, column 2 of 10"
        in (probe["group"])
    )
    assert_taps(probe["groupTaps"], second.weights[2, :, :, 5, 1])
    total = second.weights[2, :, :, 5, 1].sum().item()
    assert float(probe["group"].split("sum ")[1]) == pytest.approx(
        total, abs=0.01 * abs(total) + 1e-3
    )


def assert_taps(taps, weights):
    found = np.array([tap["weight"] for tap in taps]).reshape(weights.shape)
    np.testing.assert_allclose(found, weights, atol=1e-4)
