"""Single images in training, and in validation."""

import pytest
import torch

from san.recipe import Recipe
from tests.train import forked, jobs
from train import batch_of_one

# The last map of 6 pixels is of one, that of 8 is not.
ONE_PIXEL = "Data.image_size = 6"
FOUR_PIXELS = "Data.image_size = 8"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def train(folder, images, *params):
    """One epoch; the figures of its validation."""
    jobs.configure(folder.parent, "Recipe.epochs = 1", *params)
    last = jobs.train(folder, images).last
    return torch.load(last, weights_only=True)["state"]["latest"]


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "synchronised", "expected"),
    [
        (1, 1, 1, True, True),
        (2, 1, 1, True, False),
        (7, 3, 1, True, False),  # 2, 2 and 3.
        (7, 4, 1, True, True),  # 2, 2, 2 and 1.
        (3, 1, 2, False, True),  # 1 and 2.
        (4, 1, 2, False, False),
        (10, 2, 3, False, True),  # 3 of a process are 2 and 1.
        (3, 1, 3, True, False),
    ],
)
def test_when_it_is_one_image_at_a_time(
    batch_size, accumulation, processes, synchronised, expected
):
    recipe = Recipe(
        batch_size=batch_size,
        accumulation=accumulation,
        sync_batch_norm=synchronised,
    )
    assert batch_of_one.is_needed(recipe, processes) is expected


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (7, 4)])
def test_one_image_of_one_pixel(tmp_path, images, batch_size, accumulation):
    with pytest.raises(
        ValueError,
        match=r"^train: Recipe\.batch_size, or Data\.image_size, must .* got "
        rf"one image of 6 x 6 pixels .*batch_size {batch_size}, .* per channel",
    ):
        train(
            tmp_path / "run",
            images,
            ONE_PIXEL,
            f"Recipe.batch_size = {batch_size}",
            f"Recipe.accumulation = {accumulation}",
        )
    # Nothing was begun.
    assert not (tmp_path / "run" / "config.gin").exists()


def test_one_image_of_four_pixels(tmp_path, images):
    train(tmp_path / "run", images, FOUR_PIXELS, "Recipe.batch_size = 1")


def test_validation_takes_one_image_of_one_pixel(tmp_path, images):
    """15 of them are 7, 7 and 1."""
    validation = train(
        tmp_path / "run", images, ONE_PIXEL, "Recipe.batch_size = 7"
    )
    assert validation["num_images"] == 15


@pytest.mark.parametrize("synchronised", [True, False])
def test_a_process_has_one_image(tmp_path, images, synchronised):
    """The first of two gets one of three; 15 to validate are 8 and 7."""
    both = forked.start_together(
        2,
        tmp_path / "log",
        f"--gin_file={jobs.write_settings(tmp_path)}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
        "--epochs=1",
        "--batch_size=3",
        f"--gin_param={ONE_PIXEL}",
        f"--gin_param=Recipe.sync_batch_norm = {synchronised}",
    )
    (first, output), (second, silent) = [job.finish() for job in both]
    assert first == second == (0 if synchronised else 2), output
    said = "sync_batch_norm False, processes 2" in output
    assert said is not synchronised
    assert "Traceback" not in output + silent
