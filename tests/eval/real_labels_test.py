"""The ReaL labels on tiny folders; what is predicted is a colour's class."""

import json

import numpy as np
import pytest

from eval import evaluation, loading, real_labels, report
from eval.page import render
from san.jobs.processes import Process
from tests.eval import nearest_colour

WNIDS = nearest_colour.synsets(6)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    nearest_colour.configure(tmp_path)


def name(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


# By the number of an image: its class, what is predicted, what people see.
IMAGES = {
    1: (0, 0, [0]),
    2: (0, 1, [1, 0]),  # Wrong by its class, right by people.
    3: (4, 4, [4]),
    4: (1, 1, []),  # Left out.
    5: (3, 3, [2]),  # Right by its class, wrong by people.
    6: (2, 0, [2, 3, 5]),
    7: (5, 5, [1, 5]),
    8: (3, 3, [3]),
}
LISTS = [labels for _, _, labels in IMAGES.values()]


@pytest.fixture
def images(tmp_path):
    return nearest_colour.write(
        tmp_path / "images",
        {
            f"val/{WNIDS[label]}/{name(number)}": predicted
            for number, (label, predicted, _) in IMAGES.items()
        },
    )


def evaluate(checkpoint, images, lists):
    with loading.load(checkpoint, None, str(images), Process()) as trained:
        return evaluation.evaluate(trained, 3, lists)


@pytest.fixture
def six(tmp_path):
    return nearest_colour.checkpoint(tmp_path / "six.pth", 6, classes=WNIDS)


def error_of(checkpoint, images, lists):
    with pytest.raises(ValueError) as error:
        evaluate(checkpoint, images, lists)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_by_hand(six, images):
    """Images 1, 2, 3, 7 and 8 of seven with labels."""
    found = evaluate(six, images, LISTS)
    assert found.real == real_labels.Accuracy(
        pytest.approx(100 * 5 / 7), num_images=7, num_without=1
    )
    # Its own labels: all but 2 and 6.
    assert found.result.top1 == pytest.approx(75)
    assert evaluate(six, images, None).real is None


def test_of_a_published_checkpoint(tmp_path, images):
    checkpoint = nearest_colour.checkpoint(tmp_path / "published.pth", 6)
    found = evaluate(checkpoint, images, LISTS)
    assert found.real.top1 == pytest.approx(100 * 5 / 7)


def test_of_a_network_in_another_order(tmp_path):
    """The labels' numbers are of ImageNet's order, not of the network's."""
    order = [WNIDS[k] for k in (3, 0, 5, 1, 4, 2)]
    checkpoint = nearest_colour.checkpoint(
        tmp_path / "own.pth", 6, classes=order
    )
    images = nearest_colour.write(
        tmp_path / "images",
        {
            f"val/{WNIDS[label]}/{name(number)}": order.index(WNIDS[predicted])
            for number, (label, predicted, _) in IMAGES.items()
        },
    )
    found = evaluate(checkpoint, images, LISTS)
    assert found.real.top1 == pytest.approx(100 * 5 / 7)


def test_of_classes_by_number(tmp_path):
    checkpoint = nearest_colour.checkpoint(tmp_path / "published.pth", 6)
    images = nearest_colour.write(
        tmp_path / "images",
        {
            f"val/{label}/{name(number)}": predicted
            for number, (label, predicted, _) in IMAGES.items()
        },
    )
    found = evaluate(checkpoint, images, LISTS)
    assert found.real.top1 == pytest.approx(100 * 5 / 7)


def test_a_part_of_the_images(six, images):
    (images / "val" / WNIDS[0] / name(2)).unlink()
    found = evaluate(six, images, LISTS)
    assert found.real == real_labels.Accuracy(pytest.approx(100 * 4 / 6), 6, 1)


def test_names_with_more_behind_the_number(six, images):
    first = images / "val" / WNIDS[0] / name(1)
    first.rename(first.with_name(f"ILSVRC2012_val_00000001_{WNIDS[0]}.JPEG"))
    assert evaluate(six, images, LISTS).real.num_images == 7


def test_reports(six, images):
    found = evaluate(six, images, LISTS)
    assert report.as_text(found).splitlines()[2] == (
        "ReaL     71.43%    7 images; 1 without labels left out"
    )
    assert json.loads(report.as_json(found))["real"] == {
        "top1": pytest.approx(100 * 5 / 7),
        "num_images": 7,
        "num_without": 1,
    }
    _, head, line = report.by_size_as_text([found]).splitlines()
    assert head.split()[-1] == "ReaL" and line.split()[-1] == "71.43%"
    page = render.page(found, found)
    assert "ReaL top-1" in page and "before: 71.43%" in page


def test_labels_that_are_off_by_one(six, images):
    """As where the first image is taken to be number 0."""
    message = error_of(six, images, [LISTS[-1], *LISTS[:-1]])
    assert "in ImageNet's order of images and of classes, got labels" in message
    # Of images 2, 6 and 7; that of image 5 is the empty one now.
    assert "only 42.86% of the images" in message


def test_classes_in_another_order(six, images):
    """As in the development kit, whose numbers are others."""
    lists = [[(label + 2) % 6 for label in labels] for labels in LISTS]
    assert "in ImageNet's order" in error_of(six, images, lists)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([*LISTS[:-1], [6]], "numbers of the network's 6 classes, from 0, got"),
        (LISTS[:-1], "got those of images 1 to 7 beside val/"),
        ([[]] * 8, "must have a label for some image, got none"),
    ],
)
def test_lists_of_something_else(six, images, lists, message):
    assert message in error_of(six, images, lists)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("cat.JPEG", "images that are named ILSVRC2012_val_00000001.JPEG and"),
        ("ILSVRC2012_val_000000011.JPEG", "images that are named ILSVRC2012"),
        ("ILSVRC2012_val_00000000.JPEG", "got those of images 1 to 8 beside"),
        ("ILSVRC2012_val_00000008_copy.JPEG", "each validation image once, go"),
    ],
)
def test_files_of_other_names(six, images, new, message):
    first = images / "val" / WNIDS[0] / name(1)
    first.rename(first.with_name(new))
    said = error_of(six, images, LISTS)
    assert message in said


def test_classes_of_other_names(tmp_path, images):
    words = ["ant", "bee", "cat", "dog", "eel", "fox"]
    checkpoint = nearest_colour.checkpoint(
        tmp_path / "own.pth", 6, classes=words
    )
    for wnid, word in zip(WNIDS, words, strict=True):
        (images / "val" / wnid).rename(images / "val" / word)
    assert "by number from 0, got ant, bee, cat and 3 more" in (
        error_of(checkpoint, images, LISTS)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], [2", "must be a JSON file, got"),
        ("[" * 100_000, "must be a JSON file, got"),
        ('{"1": [1]}', "must be a list of lists of class numbers"),
        ("[1, 2]", "must be a list of lists of class numbers"),
        ("[[1.5]]", "must be a list of lists of class numbers"),
        ('[["n01440764"]]', "must be a list of lists of class numbers"),
        ("[[-1]]", "must be a list of lists of class numbers"),
    ],
)
def test_files_that_hold_no_labels(tmp_path, content, message):
    path = tmp_path / "real.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"real\.json") as error:
        real_labels.read(path)
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json, which is not there"):
        real_labels.read(tmp_path / "none.json")


def test_a_file_as_published(tmp_path):
    path = tmp_path / "real.json"
    path.write_text("[[], [970, 795], [230, 231], [809]]\n")
    assert real_labels.read(path) == [[], [970, 795], [230, 231], [809]]
    labels = real_labels.Labels([frozenset(), frozenset({970, 795})])
    assert labels.accuracy(np.array([3, 795])) == real_labels.Accuracy(
        100, 1, 1
    )
