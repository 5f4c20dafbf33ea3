"""Which settings evaluate a checkpoint of a work folder."""

import pytest

from eval import command_line
from san.jobs import config
from tests.train import jobs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One that went on with images of another size, and became no better."""
    folder = tmp_path_factory.mktemp("run")
    images = jobs.write_images(folder / "images")
    jobs.configure(folder)
    jobs.train(folder / "run", images)
    best = (folder / "run/checkpoints/best.pth").read_bytes()
    jobs.configure(
        folder,
        "Recipe.epochs = 3",
        "side = 8",
        "Data.image_size = %side",
        "Data.flip = False",
    )
    work_folder = jobs.train(folder / "run", images)
    work_folder.best.write_bytes(best)
    return work_folder


def configured(run, which, files=(), params=()):
    """What is bound of the data."""
    (selected,) = command_line.select([str(run.path)], [], which)
    selected.configure(files, params)
    return {
        name.removeprefix("Data."): text
        for name, text in config.bindings().items()
        if name.startswith("Data.") and name != "Data.num_threads"
    }


def test_a_checkpoint_is_evaluated_as_it_was_trained(run):
    best, last = configured(run, "best"), configured(run, "last")
    assert (best["image_size"], last["image_size"]) == ("12", "8")
    assert "flip" not in best  # As it was not bound then.
    assert last["flip"] == "False"


def test_what_the_command_line_says_comes_last(run, tmp_path):
    file = tmp_path / "other.gin"
    file.write_text("Data.image_size = 10\nData.resize_size = 15")
    params = ["Data.resize_size = 16"]
    for which in ("best", "last"):
        found = configured(run, which, [str(file)], params)
        assert (found["image_size"], found["resize_size"]) == ("10", "16")


def test_a_damaged_checkpoint_is_configured_by_its_folder(run, tmp_path):
    copy = jobs.WorkFolder(tmp_path)
    copy.last.parent.mkdir()
    copy.config.write_text(run.config.read_text())
    copy.last.write_bytes(b"no checkpoint")
    assert configured(copy, "last")["image_size"] == "8"
