"""The page in a real browser: no errors, sorted and filtered as asked.

Needs Debian's chromium, and runs by its name only:

  sudo apt-get install chromium && ./bazelw test //tests/eval:browser_test
"""

import dataclasses

import numpy as np
import pytest

from eval import outcomes
from eval.evaluation import Evaluation
from eval.page import render
from eval.validation import Result
from san import data
from tests.eval import browser
from tests.train import jobs

CLASSES = ["zebra", "ant", "class10", "class9"]

PROBE = """
const names = () => [...body.rows].filter((row) => row.offsetParent)
    .map((row) => row.cells[0].textContent);
const seen = {first: names()};
const heads = [...table.querySelectorAll("th button")];
heads[0].click(); seen.byName = names();
heads[0].click(); seen.byNameDown = names();
heads[2].click(); seen.byTop1 = names();
const filter = document.getElementById("filter");
filter.value = "CLASS"; filter.dispatchEvent(new Event("input"));
seen.filtered = names();
seen.width = document.documentElement.scrollWidth;
seen.pictures = [...document.images].map((image) => image.naturalWidth);
seen.figures = document.getElementById("figures").innerText;
return seen;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = jobs.write_images(
        tmp_path_factory.mktemp("images"), num_classes=4, num_val=4
    )
    for old, new in zip("abcd", CLASSES, strict=True):
        (root / "val" / old).rename(root / "val" / new)
    labels = np.repeat(np.arange(4), 4)
    wrong = np.tile(np.arange(4), 4) >= np.array([1, 4, 3, 2])[labels]
    index = data.ImageIndex(
        str(root),
        "val",
        CLASSES,
        [f"val/{CLASSES[label]}/{i % 4}.jpg" for i, label in enumerate(labels)],
        labels,
        np.full(16, 16),
        np.full(16, 18),
    )
    found = Evaluation(
        root / ("a_name_without_a_place_to_break" * 4) / "best.pth",
        None,
        "san10_pair",
        index,
        data.Data(),
        Result(1.25, [4] * 4, [1, 4, 3, 2], [4] * 4, 1.0),
        outcomes.Outcomes(
            labels,
            (labels + wrong) % 4,
            np.linspace(0.3, 1, 16),
            np.full(16, 0.2),
            wrong.astype(np.int64),
        ),
    )
    return render.page(found, dataclasses.replace(found, epoch=3))


@pytest.fixture(scope="module", params=[1200, 500])
def seen(request, page, tmp_path_factory):
    """What the probe saw at a width, and what the browser complained of."""
    folder = tmp_path_factory.mktemp("page")
    probe, complaints = browser.see(page, PROBE, folder, request.param)
    return request.param, probe, complaints


def test_no_complaints_and_nothing_sticks_out(seen):
    width, probe, complaints = seen
    assert complaints == []
    assert probe["width"] <= width


def test_figures_and_pictures_are_there(seen):
    _, probe, _ = seen
    for text in (
        "top-1\n62.50%",
        "loss\n1.2500",
        "before: 62.50%",
        "images\n16",
    ):
        assert text in probe["figures"]
    assert len(probe["pictures"]) >= 12
    assert min(probe["pictures"]) > 50


def test_classes_are_sorted_and_filtered(seen):
    _, probe, _ = seen
    assert probe["first"] == CLASSES
    assert probe["byName"] == ["ant", "class9", "class10", "zebra"]
    assert probe["byNameDown"] == probe["byName"][::-1]
    assert probe["byTop1"] == ["zebra", "class9", "class10", "ant"]
    assert probe["filtered"] == ["class9", "class10"]
