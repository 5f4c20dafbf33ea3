import pytest
import torch
from PIL import Image

from san.jobs.processes import Process
from tests.train import jobs

ALONE = Process()
NUM_CLASSES = 12
SYNSETS = [f"n{number:08}" for number in range(NUM_CLASSES)]
NUMBERS = [str(number) for number in range(NUM_CLASSES)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work folder trained on classes of ImageNet's names."""
    folder = tmp_path_factory.mktemp("run")
    images = write_images(folder / "images", ("train", "val"), SYNSETS)
    jobs.configure(folder, "Recipe.epochs = 8", "Recipe.learning_rate = 0.05")
    return jobs.train(folder / "run", images)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    jobs.configure(tmp_path)


def write_images(root, splits, names):
    """Class i is of a grey of its own, and its folder has the i-th name."""
    for split in splits:
        for label, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                level = 255 * label // NUM_CLASSES + 3 * number
                Image.new("RGB", (18, 16), (level, 255 - level, 99)).save(
                    folder / f"{number}.png"
                )
    return root


def checkpoint(run, path, **changes):
    content = torch.load(run.last, weights_only=True) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    torch.save(kept, path)
    return path


def figures(path, images, capfd):
    found = jobs.evaluate(path, data_dir=images)
    return found, capfd.readouterr().err


def test_numbers_are_a_published_networks_labels(tmp_path, run, capfd):
    published = checkpoint(run, tmp_path / "published.pth", classes=None)
    images = write_images(tmp_path / "v2", ["val"], NUMBERS)
    expected, silent = figures(published, run.path.parent / "images", capfd)
    found, said = figures(published, images, capfd)
    assert found.result.correct1 == expected.result.correct1
    assert max(found.result.correct1) > 0
    assert found.classes == NUMBERS
    assert silent == ""
    assert said == (
        "the checkpoint does not name its classes: they are taken to be the"
        " class folders in the order of their numbers, 0, 1, 2 ... 11\n"
    )


def test_a_network_trained_on_folders_in_text_order(tmp_path, run, capfd):
    text_order = sorted(NUMBERS)
    old = checkpoint(run, tmp_path / "old.pth", classes=text_order)
    images = write_images(tmp_path / "images", ["val"], text_order)
    expected, _ = figures(run.last, run.path.parent / "images", capfd)
    found, said = figures(old, images, capfd)
    assert found.result.correct1 == expected.result.correct1
    assert found.result.loss == pytest.approx(expected.result.loss)
    assert found.classes == text_order
    assert said == (
        "class folders are taken in the order of the checkpoint's classes, 0,"
        " 1, 10 ... 9, not in that of the folder, 0, 1, 2 ... 11\n"
    )


def test_numbers_are_not_the_classes_of_a_network_that_names_them(
    tmp_path, run
):
    images = write_images(tmp_path / "v2", ["val"], NUMBERS)
    with pytest.raises(
        ValueError, match="got '0' in place of 'n00000000' as class 0"
    ):
        jobs.evaluate(run.last, data_dir=images)


def test_evaluation_needs_no_train_folder(tmp_path, run):
    images = write_images(tmp_path / "images", ["val"], SYNSETS)
    (images / "train" / "other").mkdir(parents=True)
    found = jobs.evaluate(run.last, data_dir=images)
    assert found.result.num_images == 3 * NUM_CLASSES


def test_other_names_are_said(tmp_path, run, capfd):
    published = checkpoint(run, tmp_path / "published.pth", classes=None)
    names = [f"{letter} bird" for letter in "abcdefghijkl"]
    images = write_images(tmp_path / "birds", ["val"], names)
    _, said = figures(published, images, capfd)
    assert "in the order of their names, a bird, b bird, c bird ... l" in said
