"""A work folder that is trained in again, otherwise than before."""

import re

import pytest
import torch

from tests.train import jobs
from tests.train.jobs import train_with as train
from train.interruption import InterruptionError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def figures(folder):
    """What the results table is made of, but for the time."""
    state = torch.load(folder.last, weights_only=True)["state"]
    return {name: state[name] for name in ("epoch", "step", "latest", "best")}


def test_a_finished_run_keeps_its_configuration(tmp_path, images, capsys):
    folder = train(tmp_path / "run", images)
    before = folder.config.read_text(), folder.operative.read_text()
    train(tmp_path / "run", images, "Data.image_size = 14")
    assert (folder.config.read_text(), folder.operative.read_text()) == before
    said = capsys.readouterr().err
    assert "nothing left to train: 2 epochs are done" in said
    assert (
        "warning: Data.image_size was '12' in what is done, and stays so; not"
        " '14'" in said
    )


def test_other_data_settings_go_on_and_say_so(tmp_path, images, capsys):
    train(tmp_path / "run", images)
    settings = ["Recipe.epochs = 3", "side = 14", "Data.image_size = %side"]
    train(tmp_path / "run", images, *settings)
    said = capsys.readouterr().err
    assert "warning: Data.image_size was '12' so far and is '14' now" in said
    assert said.count("warning") == 2  # And the epochs, once.


@pytest.mark.parametrize(
    ("params", "old", "new"),
    [
        (["SAN.kernel_sizes = (3, 5)"], "(3, 3)", "(3, 5)"),
        (["SAN.kernel_sizes = (3, %k)", "k = 7"], "(3, 3)", "(3, 7)"),
    ],
)
def test_a_network_with_the_same_weights_is_another(
    tmp_path, images, params, old, new
):
    """Footprints change no shape of pairwise attention's weights."""
    pairwise = "SAN.attention = @PairwiseAttention"
    train(tmp_path / "run", images, pairwise)
    expected = f"resume: SAN.kernel_sizes must be the checkpoint's, {old}, got "
    with pytest.raises(ValueError, match=re.escape(expected + new)):
        train(tmp_path / "run", images, pairwise, *params)
    other = "PairwiseAttention.relation = 'summation'"
    with pytest.raises(ValueError, match="unbound, got 'summation'; give anot"):
        train(tmp_path / "run", images, pairwise, other)


def test_another_fold_cannot_resume(tmp_path):
    """Its held-out images were trained on."""
    small = ["Data.source = @write_digits", "write_digits.image_side = 12"]
    folds = [f"digits.fold = {fold}" for fold in (0, 1)]
    batch = ["Recipe.batch_size = 700", "Recipe.epochs = 1"]
    train(tmp_path / "run", None, *small, *batch, folds[0])
    with pytest.raises(ValueError, match=r"digits\.fold must be the checkp"):
        train(tmp_path / "run", None, *small, *batch, folds[1])


def test_more_epochs_go_on_and_say_so(tmp_path, images, capsys):
    train(tmp_path / "run", images)
    folder = train(tmp_path / "run", images, "Recipe.epochs = 3")
    errors = capsys.readouterr().err
    assert "going on after 2 epochs and 0 steps" in errors
    assert "warning: Recipe.epochs was 2 so far and is 3 now" in errors
    assert figures(folder)["epoch"] == 3


def test_resume_false_starts_again(tmp_path, images):
    first = train(tmp_path / "run", images)
    weights = jobs.weights(first)
    again = train(tmp_path / "run", images, "Recipe.seed = 1", resume=False)
    assert figures(again)["epoch"] == 2
    assert not torch.equal(
        weights["fc.weight"], jobs.weights(again)["fc.weight"]
    )


def test_another_network_cannot_resume(tmp_path, images):
    train(tmp_path / "run", images)
    with pytest.raises(
        ValueError, match=r"SAN\.widths must be the checkpoint's, \(32, 32\)"
    ):
        train(tmp_path / "run", images, "SAN.widths = (64, 32)")


def test_other_classes_cannot_resume(tmp_path, images):
    train(tmp_path / "run", images)
    more = jobs.write_images(tmp_path / "more", num_classes=4, num_train=6)
    with pytest.raises(
        ValueError, match=r"number of classes must be .* 3, got 4"
    ):
        train(tmp_path / "run", more)
    others = jobs.write_images(tmp_path / "others")
    for split in ("train", "val"):
        (others / split / "c").rename(others / split / "z")
    with pytest.raises(ValueError, match=r"class names must be .* c, got z"):
        train(tmp_path / "run", others)


def test_classes_in_another_order_cannot_resume(tmp_path, images):
    folder = train(tmp_path / "run", images)
    content = torch.load(folder.last, weights_only=True)
    torch.save(content | {"classes": ["b", "a", "c"]}, folder.last)
    with pytest.raises(
        ValueError, match=r"class names \(.* sorted by number.*, b, got a"
    ):
        train(tmp_path / "run", images)


def test_excluded_images_are_said_and_are_part_of_the_run(
    tmp_path, images, capfd
):
    lists = [tmp_path / "first.txt", tmp_path / "second.txt"]
    params = [f"Data.exclude = {str(path)!r}" for path in lists]
    for number, path in enumerate(lists):
        path.write_text(f"train/a/{number}.jpg\nval/b/0.jpg\n")
    with jobs.interruption(2), pytest.raises(InterruptionError):
        train(tmp_path / "run", images, params[0])
    said = capfd.readouterr().err
    for split in ("train", "val"):
        assert f"1 image of {split} excluded by {params[0]}" in said
    last = torch.load(
        tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True
    )
    assert last["num_images"] == 26
    train(tmp_path / "run", images, params[1])
    assert "(26 then, 26 others now)" in capfd.readouterr().err


@pytest.mark.parametrize("param", ["Recipe.batch_size = 5", "Recipe.seed = 3"])
def test_within_an_epoch_the_order_cannot_change(tmp_path, images, param):
    with jobs.interruption(2), pytest.raises(InterruptionError):
        train(tmp_path / "run", images)
    with pytest.raises(
        ValueError, match=r"within an epoch, Recipe\.\w+ must be"
    ):
        train(tmp_path / "run", images, param)


def test_a_published_checkpoint_cannot_be_resumed(tmp_path, images):
    folder = train(tmp_path / "run", images)
    torch.save({"state_dict": jobs.weights(folder), "epoch": 1}, folder.last)
    with pytest.raises(
        ValueError, match="got one that holds state_dict, epoch"
    ):
        train(tmp_path / "run", images)
