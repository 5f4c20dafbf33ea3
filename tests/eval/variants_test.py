"""Variants of ImageNet, each in tiny folders laid out as it is distributed.

What is predicted of an image is its colour's class: nearest_colour.py.
"""

import dataclasses
import json
import math
import shutil

import pytest
from PIL import Image

from eval import evaluation, report
from eval.page import render
from eval.variants import class_map, loading
from eval.variants.definitions import VARIANTS
from san.data import DataError
from san.jobs.processes import Process
from tests.eval import nearest_colour

WNIDS = nearest_colour.synsets(1000)
# Class folders of ImageNet-A and -R: 200 of the thousand.
SOME = range(3, 1000, 5)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    nearest_colour.configure(tmp_path)


@pytest.fixture
def named(tmp_path):
    """A checkpoint that names its thousand classes."""
    return nearest_colour.checkpoint(tmp_path / "own.pth", 1000, classes=WNIDS)


@pytest.fixture
def published(tmp_path):
    """A checkpoint that does not."""
    return nearest_colour.checkpoint(tmp_path / "published.pth", 1000)


@pytest.fixture
def six(tmp_path):
    """A checkpoint of six classes."""
    return nearest_colour.checkpoint(tmp_path / "six.pth", 6, classes=WNIDS[:6])


def evaluate(checkpoint, folder, variant=None, mapped=None, among_all=True):
    request = loading.Request(
        folder, variant, mapped and class_map.read(mapped), among_all
    )
    trained = loading.load(checkpoint, None, request, Process())
    return evaluation.evaluate(trained, 64)


def error_of(*arguments, **options):
    with pytest.raises(ValueError) as error:
        evaluate(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def subset(root, predicted=lambda place, output: output):
    """200 class folders; the predictions of their images by place."""
    return nearest_colour.write(
        root,
        {
            f"{WNIDS[output]}/0.jpg": predicted(place, output)
            for place, output in enumerate(SOME)
        },
    )


def numbered(root, count):
    """As ImageNetV2: folders 0, 1, 2, ... of one right image each."""
    return nearest_colour.write(
        root, {f"{number}/a.jpeg": number for number in range(count)}
    )


@pytest.mark.parametrize("which", ["named", "published"])
def test_v2_by_number(tmp_path, request, capsys, which):
    """Folder 10 comes before 2 as text: 2 in 1000 would be right."""
    folder = numbered(tmp_path / "v2", 1000)
    shutil.copy(folder / "5" / "a.jpeg", folder / "7" / "b.jpeg")
    found = evaluate(request.getfixturevalue(which), folder, "v2")
    assert found.result.top1 == pytest.approx(100 * 1000 / 1001)
    assert found.result.images[7] == 2 and found.result.correct1[7] == 1
    assert found.classes == (
        WNIDS if which == "named" else [*map(str, range(1000))]
    )
    said = capsys.readouterr().err
    assert said == (
        ""
        if which == "named"
        else "the checkpoint does not name its classes: class folder N is taken"
        " to be its class N, from 0\n"
    )
    assert found.about == (
        'ImageNetV2 (Recht et al., "Do ImageNet Classifiers Generalize to'
        " ImageNet?\", ICML 2019): predictions among all of the network's 1000"
        " classes; 1001 images, NOT the 10000 that it was distributed with"
    )


def test_v2_in_folders_of_names(tmp_path, six):
    """Another distribution of it."""
    folder = nearest_colour.write(
        tmp_path / "v2", {f"{WNIDS[k]}/a.jpeg": k for k in range(6)}
    )
    assert evaluate(six, folder, "v2").result.top1 == 100


def test_v2_of_a_network_in_another_order(tmp_path):
    """Numbers are places among ImageNet's sorted names, not outputs."""
    order = [WNIDS[k] for k in (3, 0, 5, 1, 4, 2)]
    checkpoint = nearest_colour.checkpoint(
        tmp_path / "own.pth", 6, classes=order
    )
    folder = nearest_colour.write(
        tmp_path / "v2",
        {f"{k}/a.jpeg": order.index(WNIDS[k]) for k in range(6)},
    )
    assert evaluate(checkpoint, folder, "v2").result.top1 == 100


def test_v2_of_a_network_that_was_trained_on_numbers(tmp_path):
    order = ["0", "1", "10", "11", *map(str, range(2, 10))]
    checkpoint = nearest_colour.checkpoint(
        tmp_path / "own.pth", 12, classes=order
    )
    folder = nearest_colour.write(
        tmp_path / "v2", {f"{n}/a.jpeg": order.index(n) for n in order}
    )
    assert evaluate(checkpoint, folder, "v2").result.top1 == 100


def test_v2_of_a_network_of_words_needs_a_map(tmp_path):
    words = ["ant", "bee", "cat"]
    checkpoint = nearest_colour.checkpoint(
        tmp_path / "own.pth", 3, classes=words
    )
    folder = nearest_colour.write(
        tmp_path / "v2",
        {f"{number}/a.jpeg": (2, 0, 1)[number] for number in range(3)},
    )
    message = error_of(checkpoint, folder, "v2")
    assert message == (
        "eval: class folders must be known to be classes of the network, got 0,"
        " 1, 2, where its classes are ant, bee, cat: --class_map must name a"
        " JSON file of class folders and classes, or --data_dir another folder"
    )
    mapped = nearest_colour.write_json(
        tmp_path / "map.json", {"0": "cat", "1": "ant", "2": 1}
    )
    assert evaluate(checkpoint, folder, "v2", mapped).result.top1 == 100


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["0", "1", "2", "4", "5"],
            "ImageNetV2 must have a class folder for each of 6 classes, got 5"
            f" class folders of 5 classes, without {WNIDS[3]}",
        ),
        (
            ["1", "2", "3", "4", "5", "6"],
            "class folders named by number must be named from 0 to 5, for the"
            " network's classes, got 6",
        ),
        (
            ["0", "1", "2", "3", "4", "5", "05"],
            "must have a class folder for each of 6 classes, got 7 class folders"
            " of 6 classes",
        ),
        (["val"], "must be known to be classes of the network, got val, where"),
    ],
)
def test_numbers_that_are_not_the_networks_classes(
    tmp_path, six, names, message
):
    folder = nearest_colour.write(
        tmp_path / "v2", {f"{name}/a.jpeg": 0 for name in names}
    )
    assert message in error_of(six, folder, "v2")


@pytest.mark.parametrize("variant", ["a", "r"])
def test_predictions_are_compared_among_the_classes_of_the_variant(
    tmp_path, named, variant
):
    """By hand. Class k + 1 has no folder; the nearest that has one wins.

    Colours are (15 + 25 a, 15 + 25 b, 15 + 25 c) for class a + 10 b + 100 c.
    Folders are of a = 3 and a = 8. An image of a = 4 is of no folder's class
    and nearest to a = 3: right there, wrong among all thousand classes. One of
    a = 7 that lies in the folder of a = 3 is nearest to a = 8.
    """

    def predicted(place, output):
        return output + (0, 1, 4)[place % 3] * (output % 10 == 3)

    folder = subset(tmp_path / "set", predicted)
    (folder / "README.txt").write_text("200 classes")
    found = evaluate(named, folder, variant)
    places = [place for place, k in enumerate(SOME) if k % 10 == 3]
    wrong = [place for place in places if place % 3 == 2]
    assert len(places) == 100 and len(wrong) == 33
    assert found.result.top1 == pytest.approx(100 * (200 - 33) / 200)
    for place in wrong:
        # The next folder in order, of a = 8.
        assert found.outcomes.predicted[place] == place + 1
    assert found.classes == [WNIDS[output] for output in SOME]
    title = VARIANTS[variant].title
    assert found.about.startswith(title)
    assert "among 200 of the network's 1000 classes; 200 images" in found.about
    # Its probabilities are of 200 classes.
    assert found.outcomes.confidences.max() <= 1
    assert all(
        math.isclose(float(one), float(other))
        for one, other, rank in zip(
            found.outcomes.confidences,
            found.outcomes.probabilities,
            found.outcomes.ranks,
            strict=True,
        )
        if rank == 0
    )


def test_the_number_of_images_as_distributed_is_not_remarked_on(
    tmp_path, named, monkeypatch
):
    folder = subset(tmp_path / "a")
    whole = dataclasses.replace(VARIANTS["a"], num_images=200)
    monkeypatch.setitem(VARIANTS, "a", whole)
    found = evaluate(named, folder, "a")
    assert found.about.endswith("classes; 200 images")


def test_a_partial_folder_is_refused(tmp_path, named):
    folder = subset(tmp_path / "a")
    shutil.rmtree(folder / WNIDS[8])
    assert error_of(named, folder, "a") == (
        "eval: ImageNet-A must have a class folder for each of 200 classes, got"
        " 199 class folders of 199 classes"
    )


def test_a_network_without_the_classes(tmp_path, six):
    message = error_of(six, subset(tmp_path / "a"), "a")
    assert f"got {WNIDS[8]}, {WNIDS[13]}" in message
    few = nearest_colour.write(
        tmp_path / "few", {f"{WNIDS[k]}/0.jpg": k for k in range(6)}
    )
    assert error_of(six, few, "a") == (
        "eval: ImageNet-A must be evaluated with a network that has its 200"
        " classes, got one of 6"
    )


def test_a_published_checkpoint_needs_to_know_its_classes(
    tmp_path, published, capsys
):
    folder = subset(tmp_path / "r")
    message = error_of(published, folder, "r")
    assert message == (
        "eval: class folders must be known to be classes of the network, got"
        f" {WNIDS[3]}, {WNIDS[8]}, {WNIDS[13]} and 197 more beside a checkpoint"
        " that does not name its 1000 classes: --class_map must name a folder"
        " that has them all, such as ImageNet's train or val, or a JSON file of"
        " class folders and numbers"
    )
    for name in WNIDS:
        (tmp_path / "val" / name).mkdir(parents=True)
    by_folder = evaluate(published, folder, "r", tmp_path / "val")
    # More than the folders: only they are asked for.
    by_file = evaluate(
        published,
        folder,
        "r",
        nearest_colour.write_json(
            tmp_path / "map.json", {name: k for k, name in enumerate(WNIDS)}
        ),
    )
    for found in (by_folder, by_file):
        assert found.result.top1 == 100
        assert found.classes == [WNIDS[output] for output in SOME]
    assert capsys.readouterr().err == ""


def test_pictures_of_all_kinds(tmp_path, named):
    """As in ImageNet-R: grey, PNG by the name of a JPEG, spaces, one pixel."""
    folder = subset(tmp_path / "r")
    grey = 444  # Of one level in all three colours.
    assert len(set(nearest_colour.colour(grey))) == 1
    first = folder / WNIDS[3]
    Image.new("L", (9, 30), nearest_colour.colour(grey)[0]).save(
        first / "art of (a) 'fish', no. 1.jpg"
    )
    Image.new("RGBA", (16, 16), (*nearest_colour.colour(3), 255)).save(
        first / "cartoon 2.jpg", format="PNG"
    )
    Image.new("RGB", (1, 1), nearest_colour.colour(3)).save(first / "tiny.png")
    found = evaluate(named, folder, "r")
    assert found.result.images[0] == 4 and found.result.correct1[0] == 3
    assert found.index.paths[1] == f"{WNIDS[3]}/art of (a) 'fish', no. 1.jpg"
    # 443 has the same colours but one: the nearest that has a folder.
    assert found.classes[found.outcomes.predicted[1]] == WNIDS[443]


def test_damaged_files_are_named(tmp_path, six):
    folder = numbered(tmp_path / "v2", 6)
    (folder / "4" / "b.jpeg").write_bytes(b"")
    with pytest.raises(DataError, match=r"v2/4/b\.jpeg is empty"):
        evaluate(six, folder, "v2")


def test_sketch_of_a_published_checkpoint(tmp_path, capsys):
    """A folder for each of its classes tells their order."""
    checkpoint = nearest_colour.checkpoint(tmp_path / "published.pth", 6)
    images = {f"{WNIDS[k]}/sketch_{k}.JPEG": k for k in range(6)}
    images[f"{WNIDS[2]}/sketch_9.JPEG"] = 0
    folder = nearest_colour.write(tmp_path / "sketch", images)
    found = evaluate(checkpoint, folder, "sketch")
    assert found.result.top1 == pytest.approx(100 * 6 / 7)
    assert capsys.readouterr().err == ""
    shutil.rmtree(folder / WNIDS[5])
    assert "does not name its 6 classes" in error_of(
        checkpoint, folder, "sketch"
    )


@pytest.fixture
def own(tmp_path):
    """Two folders of one class and one of another; by hand below."""
    return nearest_colour.write(
        tmp_path / "own",
        {
            "red fox/1.png": 1,
            "kit fox/1.png": 1,
            "kit fox/2.png": 0,
            "whale/1.png": 4,
            "whale/2.png": 3,
        },
    )


@pytest.fixture
def own_map(tmp_path):
    return nearest_colour.write_json(
        tmp_path / "map.json",
        {"red fox": WNIDS[1], "kit fox": 1, "whale": WNIDS[4]},
    )


def test_a_set_of_ones_own(six, own, own_map):
    """Among all: 1, 1, 4 are right; 0 and 3 are other classes.

    Among the two, 0 is nearest to 1 and 3 to 4.
    """
    found = evaluate(six, own, mapped=own_map)
    assert found.result.top1 == pytest.approx(60)
    assert found.result.images == [0, 3, 0, 0, 2, 0]
    assert found.classes == WNIDS[:6]
    assert found.about == (
        "3 class folders by map.json: predictions among all of the network's 6"
        " classes"
    )
    found = evaluate(six, own, mapped=own_map, among_all=False)
    assert found.result.top1 == 100
    assert found.result.images == [3, 2]
    assert "predictions among 2 of the network's 6 classes" in found.about


def test_every_kind_of_report(six, own, own_map):
    """Classes without images have no accuracy."""
    found = evaluate(six, own, mapped=own_map)
    text = report.as_text(found)
    assert text.splitlines()[1] == found.about
    assert [line.split()[0] for line in text.splitlines()[-3:]] == [
        "class",
        WNIDS[1],
        WNIDS[4],
    ]
    figures = json.loads(report.as_json(found))
    assert figures["about"] == found.about
    assert figures["real"] is None
    assert figures["per_class"] == {
        WNIDS[1]: {"top1": 100 * 2 / 3, "top5": 100.0, "num_images": 3},
        WNIDS[4]: {"top1": 50.0, "top5": 100.0, "num_images": 2},
    }
    assert report.as_csv(found).count("\n") == 3
    assert found.about in report.by_size_as_text([found, found])
    page = render.page(found, found)
    assert "predictions among all of the network" in page
    assert f"on {own}" in page and f"{own}/val" not in page


def test_reports_of_some_classes_alone(six, own, own_map):
    found = evaluate(six, own, mapped=own_map, among_all=False)
    figures = json.loads(report.as_json(found))
    assert list(figures["per_class"]) == [WNIDS[1], WNIDS[4]]
    assert "No image is wrong" in render.page(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a JSON object, got"),
        ("[" * 100_000, "must be a JSON object, got"),
        ("[1]", "must be a JSON object of class folders and classes"),
        ("{}", "must be a JSON object of class folders and classes"),
        ('{"whale": 1, "whale": 2}', "('whale' is in it twice)"),
        ('{"0": ["n01440764", "tench"]}', "or its number from 0, got ['n0144"),
        ('{"whale": true}', "or its number from 0, got True for 'whale'"),
        ('{"whale": 1.0}', "or its number from 0, got 1.0 for 'whale'"),
        (
            '{"red fox": 1, "kit fox": 1}',
            "must give every class folder a class, got none for 'whale'",
        ),
        (
            '{"red fox": 1, "kit fox": 1, "whale": 6}',
            "must give classes from 0 to 5, got 6 for 'whale'",
        ),
        (
            '{"red fox": 1, "kit fox": 1, "whale": -1}',
            "must give classes from 0 to 5, got -1 for 'whale'",
        ),
        (
            '{"red fox": 1, "kit fox": 1, "whale": "whale"}',
            "must give names of the network's classes, got 'whale' for 'whale'",
        ),
        (
            '{"red fox": 1, "kit fox": 1, "whale": 2, "seal": 3}',
            "must have all class folders of --class_map, got none for seal",
        ),
    ],
)
def test_class_maps_that_cannot_be_right(tmp_path, six, own, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    said = error_of(six, own, mapped=path)
    assert message in said and str(path) in said


def test_a_class_map_that_is_not_there(tmp_path, six, own):
    assert "none.json, which is not there" in error_of(
        six, own, mapped=tmp_path / "none.json"
    )


def test_a_class_map_must_not_contradict_the_checkpoint(tmp_path, six):
    """Numbers from 1, as in ImageNet's own tables."""
    folder = nearest_colour.write(tmp_path / "own", {f"{WNIDS[2]}/1.png": 2})
    mapped = nearest_colour.write_json(tmp_path / "map.json", {WNIDS[2]: 3})
    assert "got class 3 for" in error_of(six, folder, mapped=mapped)
    right = nearest_colour.write_json(tmp_path / "map.json", {WNIDS[2]: 2})
    assert evaluate(six, folder, mapped=right).result.top1 == 100


def test_names_of_a_network_that_has_none(tmp_path, own, own_map):
    checkpoint = nearest_colour.checkpoint(tmp_path / "published.pth", 6)
    assert "the checkpoint names no classes, so numbers are needed" in error_of(
        checkpoint, own, mapped=own_map
    )
    numbers = nearest_colour.write_json(
        tmp_path / "map.json", {"red fox": 1, "kit fox": 1, "whale": 4}
    )
    found = evaluate(checkpoint, own, mapped=numbers)
    assert found.result.top1 == pytest.approx(60)
    assert list(json.loads(report.as_json(found))["per_class"]) == [
        "kit fox, red fox",
        "whale",
    ]


def test_a_folder_of_other_classes(tmp_path, six, published):
    others = tmp_path / "val"
    for name in ("a", "b", "c", "d", "e", "f"):
        (others / name).mkdir(parents=True)
    folder = numbered(tmp_path / "v2", 6)
    assert "must hold the classes that the checkpoint names, got no" in (
        error_of(six, folder, "v2", others)
    )
    assert "each of the network's 1000 classes, got 6 in" in error_of(
        published, folder, "v2", others
    )
    assert "holds no class folders" in error_of(six, folder, "v2", others / "a")


def test_an_exclusion_list_is_of_another_folder(tmp_path, six, capsys):
    folder = numbered(tmp_path / "v2", 6)
    nearest_colour.configure(tmp_path, "Data.exclude = 'bad.txt'")
    assert evaluate(six, folder, "v2").result.num_images == 6
    assert capsys.readouterr().err == (
        "Data.exclude lists images of the data folder; none of a variant is"
        " left out\n"
    )


def test_two_classes_of_one_name_are_told_apart_by_number(tmp_path, own):
    """ImageNet has two cranes and two maillots."""
    words = ["ant", "crane", "bee", "cat", "crane", "dog"]
    checkpoint = nearest_colour.checkpoint(tmp_path / "w.pth", 6, classes=words)
    folders = {"red fox": 1, "kit fox": 1, "whale": "crane"}
    mapped = nearest_colour.write_json(tmp_path / "map.json", folders)
    assert (
        "got 'crane' for classes 1 and 4: --class_map must give their numbers"
    ) in error_of(checkpoint, own, mapped=mapped)
    mapped = nearest_colour.write_json(mapped, folders | {"whale": 4})
    figures = json.loads(
        report.as_json(evaluate(checkpoint, own, mapped=mapped))
    )
    assert {
        name: one["num_images"] for name, one in figures["per_class"].items()
    } == {"crane (1)": 3, "crane (4)": 2}
    crane = nearest_colour.write(tmp_path / "birds", {"crane/1.png": 4})
    mapped = nearest_colour.write_json(mapped, {"crane": 4})
    found = evaluate(checkpoint, crane, mapped=mapped)
    assert found.result.top1 == 100
    for word in ("ant", "bee", "cat", "crane", "dog", "eel"):
        (tmp_path / "all" / word).mkdir(parents=True)
    assert "got one 'crane' for several in" in error_of(
        checkpoint, own, mapped=tmp_path / "all"
    )


def test_a_class_map_as_some_editors_write_it(tmp_path, six, own, own_map):
    marked = tmp_path / "marked.json"
    marked.write_text(own_map.read_text(), encoding="utf-8-sig")
    found = evaluate(six, own, mapped=marked)
    assert found.result.top1 == pytest.approx(60)
