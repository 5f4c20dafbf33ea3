"""Rotated images, and what a network makes of them."""

import json
import pathlib

import pytest
import torch

from eval import (
    angles,
    loading,
    published,
    rotation_plot,
    rotation_report,
    rotations,
    validation,
)
from eval.subject import Subject
from san.jobs.processes import Process
from tests.train import jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"), num_classes=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A trained work folder."""
    folder = tmp_path_factory.mktemp("run")
    jobs.configure(folder, "Recipe.learning_rate = 0.05")
    return jobs.train(folder / "run", images)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    jobs.configure(tmp_path)


def image(*rows):
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def test_orientations_by_hand():
    before = image([1, 2], [3, 4])
    expected = {
        "none": [[1, 2], [3, 4]],
        "90 clockwise": [[3, 1], [4, 2]],
        "180": [[4, 3], [2, 1]],
        "270 clockwise": [[2, 4], [1, 3]],
        "upside-down": [[3, 4], [1, 2]],
    }
    found = {
        name: turn(before)[0, 0].tolist()
        for name, turn in rotations.ORIENTATIONS.items()
    }
    assert found == expected


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 450, 360.0])
def test_quarters_change_no_pixel(degrees):
    before = torch.randn(2, 3, 5, 5)
    after = rotations.rotate(before, degrees)
    assert torch.equal(after, before.rot90(-int(degrees) // 90, (2, 3)))


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_interpolation_meets_the_quarters(size, degrees):
    # Else one of the two turns the other way, or about another centre.
    before = torch.randn(2, 3, size, size)
    near = rotations.rotate(before, degrees + 1e-4)
    exact = rotations.rotate(before, degrees)
    torch.testing.assert_close(near, exact, rtol=0, atol=1e-3)


def test_forty_five_degrees_by_hand():
    # Two pixels right of the centre goes to a diagonal. Its pixel (1, 1) comes
    # from sqrt(2) to the right, between the pixels 1 and 2.
    before = torch.zeros(1, 1, 5, 5)
    before[0, 0, 2, 4] = 1
    after = rotations.rotate(before, 45)[0, 0]
    assert after.argmax().item() == 3 * 5 + 3
    assert after[3, 3].item() == pytest.approx(2**0.5 - 1, abs=1e-5)


def test_the_corners_get_the_fill():
    before = torch.full((1, 3, 9, 9), 5.0)
    fill = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    after = rotations.rotate(before, 45, fill)
    assert after[0, :, 0, 0].tolist() == [1, 2, 3]
    torch.testing.assert_close(after[0, :, 4, 4], torch.full((3,), 5.0))
    assert rotations.rotate(before, 45)[0, 0, 0, 0] == 0


def measure(run, degrees=(), fill="mean", batch_size=4):
    with loading.load(run.last, None, None, Process()) as trained:
        found = rotations.measure(trained, degrees, fill, batch_size)
        return Subject.of("run", trained), found


def without_time(result):
    return (result.loss, result.correct1, result.correct5, result.images)


def test_upright_is_validation(run):
    _, found = measure(run, [0, 30, 360, 450])
    latest = torch.load(run.last, weights_only=True)["state"]["latest"]
    upright = found.orientations["none"]
    assert upright.top1 == latest["top1"]
    assert upright.loss == pytest.approx(latest["loss"], rel=1e-6)
    assert found.angles[0] is found.angles[360] is upright
    assert found.angles[450] is found.orientations["90 clockwise"]
    losses = {result.loss for result in found.orientations.values()}
    assert len(losses) == 5
    assert found.angles[30].loss not in losses


def test_logits_that_overflow_have_no_accuracy(tmp_path, run):
    checkpoint = torch.load(run.last, weights_only=True)
    checkpoint["state_dict"]["fc.weight"].fill_(3e38)
    path = tmp_path / "large.pth"
    torch.save(checkpoint, path)
    with (
        loading.load(path, None, None, Process()) as trained,
        pytest.raises(FloatingPointError, match="logits must be finite"),
    ):
        rotations.measure(trained, [], "mean", None)


def test_two_runs_give_the_same_bits(run):
    for one, other in zip(
        *(measure(run, [20])[1].angles.values() for _ in range(2)), strict=True
    ):
        assert without_time(one) == without_time(other)


def test_the_fill_is_a_colour_of_the_image(run):
    with loading.load(run.last, None, None, Process()) as trained:
        settings = trained.settings
        black = rotations._fill(trained, "black").flatten()
        mean = rotations._fill(trained, "mean").flatten()
    pixels = black * torch.tensor(settings.std) + torch.tensor(settings.mean)
    torch.testing.assert_close(pixels, torch.zeros(3))
    assert mean.tolist() == [0, 0, 0]
    losses = {
        measure(run, [45], fill)[1].angles[45].loss for fill in rotations.FILLS
    }
    assert len(losses) == 2


def test_angles_of_the_command_line():
    assert angles.parse("0:360:90") == [0, 90, 180, 270, 360]
    assert angles.parse("0:10:4") == [0, 4, 8]
    assert angles.parse("10:-10:-10") == [10, 0, -10]
    assert angles.parse("0:0.3:0.1") == pytest.approx([0, 0.1, 0.2, 0.3])
    assert angles.parse("5:5:1") == [5]


@pytest.mark.parametrize(
    "text", ["", "90", "0:360", "0:360:0", "0:360:-15", "a:b:c", "0:inf:1"]
)
def test_angles_that_are_none(text):
    with pytest.raises(ValueError, match=r"--angles must be START:STOP:STEP"):
        angles.parse(text)


def result(top1, top5):
    return validation.Result(0.5, [1000], [top1 * 10], [top5 * 10], 1.0)


def example(network):
    subject = Subject("one", pathlib.Path("one/best.pth"), 3, network, 1000, 10)
    orientations = {name: result(50, 75) for name in rotations.ORIENTATIONS}
    return subject, rotations.Accuracies(orientations, {22.5: result(40, 60)})


def test_text_by_hand():
    lines = rotation_report.as_text(*example("san10_pair")).splitlines()
    assert lines == [
        "one/best.pth (epoch 3): san10_pair, 1000 images of 10 classes",
        "rotated by          top-1     top-5    published top-1, top-5",
        "none               50.00%    75.00%                74.9%  92.1%",
        "90 clockwise       50.00%    75.00%                51.8%  74.6%",
        "180                50.00%    75.00%                54.7%  78.5%",
        "270 clockwise      50.00%    75.00%                51.7%  74.5%",
        "upside-down        50.00%    75.00%                54.7%  78.5%",
        "22.5 degrees       40.00%    60.00%",
        published.NOTE,
    ]
    text = rotation_report.as_text(*example(None))
    assert "published" not in text and "san10" not in text


def test_json_has_every_figure():
    pairs = [example("resnet50"), example(None)]
    found = json.loads(rotation_report.as_json(pairs, "black"))
    assert found["fill"] == "black"
    known, unknown = found["networks"]
    assert known["label"] == "one" and known["num_images"] == 1000
    assert known["orientations"]["180"] == {
        "top1": 50,
        "top5": 75,
        "loss": 0.5,
    }
    assert known["angles"] == [
        {"degrees": 22.5, "top1": 40, "top5": 60, "loss": 0.5}
    ]
    theirs = known["published_on_imagenet"]
    assert theirs["upside-down"] == {"top1": 53.0, "top5": 77.3}
    assert unknown["published_on_imagenet"] is None


def test_published_figures_are_whole():
    assert set(published.ROTATIONS) == set(published.ATTACKS)
    for row in published.ROTATIONS.values():
        assert len(row) == len(rotations.ORIENTATIONS)
        assert all(top1 < top5 for top1, top5 in row)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure(tmp_path, ending):
    path = tmp_path / f"angles.{ending}"
    rotation_plot.draw(path, [example("resnet50")])
    assert path.stat().st_size > 1000
