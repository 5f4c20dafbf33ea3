"""The page of an evaluation, as text; a browser's view is browser_test.py's."""

import dataclasses
import html.parser
import itertools
import json
import re

import numpy as np
import pytest

from eval import outcomes
from eval.page import findings, render
from tests.train import jobs

# In 3 classes, the names of which a page has to escape.
NAMES = ["a & b", "<b>", 'quo"te']


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = jobs.write_images(
        tmp_path_factory.mktemp("images"), num_val=7, val_sides=(16, 40)
    )
    for split in ("train", "val"):
        for old, new in zip("abc", NAMES, strict=True):
            (root / split / old).rename(root / split / new)
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory, images):
    """Two work folders: one epoch, and three."""
    folder = tmp_path_factory.mktemp("runs")
    jobs.configure(folder, "Recipe.epochs = 1", "Recipe.learning_rate = 1e-3")
    first = jobs.train(folder / "one", images)
    jobs.configure(folder, "Recipe.epochs = 3")
    return first, jobs.train(folder / "three", images)


@pytest.fixture
def found(tmp_path, runs):
    return [evaluate(tmp_path, run) for run in runs]


def evaluate(folder, run):
    jobs.configure(folder)
    return jobs.evaluate(run.last, run.path)


class Checker(html.parser.HTMLParser):
    """Every tag is closed, and nothing is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href"):
                assert value.startswith("data:image/jpeg;base64,")
                self.images.append(value)
        if tag not in ("meta", "img", "input", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return " ".join(" ".join(checker.text).split()), checker.images


def test_a_page_of_one_network(found):
    one, _ = found
    text, shown = text_of(render.page(one))
    assert f"top-1 {one.result.top1:.2f}%" in text
    assert f"loss {one.result.loss:.4f}" in text
    for name in NAMES:
        assert f"{name} 7 " in text
    assert "before" not in text and "What has changed" not in text
    wrong = int((~one.outcomes.correct).sum())
    assert wrong > 0 and len(shown) >= wrong
    assert text.count("taken for") >= wrong
    for pair in findings.confused_pairs(one):
        assert f"{pair.label} taken for {pair.predicted}: {pair.count}" in text


def test_a_page_of_two_networks(found):
    one, other = found
    text, _ = text_of(render.page(other, one))
    assert f"top-1 {other.result.top1:.2f}% before: {one.result.top1:.2f}" in (
        text
    )
    now, then = other.outcomes.correct, one.outcomes.correct
    assert (
        f"Right, and wrong before: {(now & ~then).sum()} image" in text
        and f"Wrong, and right before: {(then & ~now).sum()} image" in text
    )
    change = 100 * (now.mean() - then.mean())
    assert abs(change) > 1
    rows = findings.by_class(other, one)
    assert np.mean([row.top1 - row.before for row in rows]) == pytest.approx(
        change
    )
    for row in rows:
        assert f"{row.top1 - row.before:+.2f}" in text


def test_other_images_cannot_be_compared(tmp_path, found, images):
    one, other = found
    part = other.index.part(np.arange(4))
    with pytest.raises(ValueError, match="same images and classes, got 4 im"):
        render.page(one, dataclasses.replace(other, index=part))


def test_accuracy_by_size(found):
    rows = findings.by_size(found[0])
    assert sum(row.images for row in rows) == 21
    assert len(rows) > 1
    assert all(a.largest <= b.smallest for a, b in itertools.pairwise(rows))
    mean = sum(row.images * row.top1 for row in rows) / 21
    assert mean == pytest.approx(found[0].result.top1)


def test_figures_are_those_of_the_counts(found):
    for one in found:
        right = one.outcomes.correct
        assert right.sum() == sum(one.result.correct1)
        assert (one.outcomes.predicted == one.outcomes.labels).tolist() == (
            right.tolist()
        )
        assert (one.outcomes.ranks < 5).sum() == sum(one.result.correct5)
        loss = -np.log(one.outcomes.probabilities).mean()
        assert loss == pytest.approx(one.result.loss, rel=1e-5)


def test_calibration_by_hand():
    correct = np.array([True, True, False, True])
    confidences = np.array([1.0, 0.99, 0.97, 0.4])
    known = outcomes.Outcomes(
        np.zeros(4, int), ~correct * 1, confidences, confidences, ~correct * 1
    )
    found = outcomes.calibration(known)
    assert found.counts.tolist() == [0] * 5 + [1] + [0] * 8 + [3]
    assert found.accuracies[[5, 14]] == pytest.approx([1, 2 / 3])
    gap = abs(2 / 3 - (1 + 0.99 + 0.97) / 3)
    assert found.error == pytest.approx((3 * gap + 0.6) / 4)
    # The border of two bins belongs to the lower one.
    edge = outcomes.calibration(
        outcomes.Outcomes(
            *[np.zeros(2, int)] * 2,
            np.array([0.2, 0.0]),
            *[np.zeros(2, int)] * 2,
        )
    )
    assert edge.counts[:4].tolist() == [1, 0, 1, 0]


def test_the_command_writes_everything(tmp_path, runs):
    first, last = runs
    code, stdout, stderr = jobs.run(
        "eval.imagenet",
        f"--workdir={last.path}",
        f"--against={first.path}",
        "--which=last",
        "--report=page.html",
        "--csv=classes.csv",
        "--batch_size=5",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 0, stderr
    assert "ECE " in stdout
    text, _ = text_of((tmp_path / "page.html").read_text())
    assert "What has changed" in text
    # --which counts for both.
    assert str(first.last) in text and str(last.last) in text
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert lines[0] == "class,num_images,top1,top5"
    assert [re.split(",", line)[-3] for line in lines[1:]] == ["7"] * 3


def test_a_comparison_without_a_page(tmp_path, runs):
    code, _, stderr = jobs.run(
        "eval.imagenet",
        f"--workdir={runs[0].path}",
        f"--against={runs[1].path}",
    )
    assert code == 2
    assert "eval: --against must come with --report" in stderr


def test_other_sizes_are_a_line_each(tmp_path, runs):
    _, last = runs
    code, stdout, stderr = jobs.run(
        "eval.imagenet",
        f"--workdir={last.path}",
        "--image_size=12,18",
        "--json=sizes.json",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 0, stderr
    title, _, *lines = stdout.splitlines()
    assert str(last.best) in title
    found = json.loads((tmp_path / "sizes.json").read_text())
    jobs.configure(tmp_path)
    expected = jobs.evaluate(last.best, last.path)
    assert found[0]["loss"] == pytest.approx(expected.result.loss)
    for one, line, sizes in zip(
        found, lines, [(12, 14), (18, 21)], strict=True
    ):
        assert (one["image_size"], one["resize_size"]) == sizes
        assert [*map(int, line.split()[:2])] == [*sizes]
        assert f"{one['top1']:.2f}%" in line
    assert found[0]["loss"] != found[1]["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size=0"], "must be sizes in pixels, such as 192,224, got 0"),
        (["--image_size=12,x"], "got 12,x"),
        (
            ["--image_size=12,16", "--csv=classes.csv"],
            "--report and --csv must come with one --image_size",
        ),
    ],
)
def test_sizes_that_make_no_sense(tmp_path, runs, arguments, message):
    code, _, stderr = jobs.run(
        "eval.imagenet",
        f"--workdir={runs[0].path}",
        *arguments,
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 2
    assert stderr.startswith("error: eval: ") and message in stderr
