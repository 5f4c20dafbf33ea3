"""One, two and four processes train the same, step by step.

Seven images a step are no even number of anything: 3 and 4 of two processes,
1, 2, 2 and 2 of four, and their parts are 2, 2 and 3, or 2 and 1, 2 and 2.
"""

import pytest
from tensorboard.backend.event_processing import event_accumulator

from tests.train import forked, jobs

# 27 images are 3 steps an epoch.
SETTINGS = """
Recipe.batch_size = 7
Recipe.epochs = 4
Recipe.learning_rate = 0.03
Recipe.log_every_steps = 1
"""
WITHOUT_NORMS = "\ncreate_model.name = @without_norms"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def losses(folder, images, settings, processes, accumulation=1):
    """The training losses of all steps, and the validation losses."""
    folder = folder / f"{processes}_{accumulation}"
    folder.mkdir()
    running = forked.start_together(
        processes,
        folder / "log",
        f"--gin_file={jobs.write_settings(folder, SETTINGS + settings)}",
        f"--data_dir={images}",
        f"--workdir={folder / 'run'}",
        f"--gin_param=Recipe.accumulation = {accumulation}",
    )
    for job in running:
        code, output = job.finish()
        assert code == 0, output
    events = event_accumulator.EventAccumulator(str(folder / "run/tensorboard"))
    events.Reload()
    training, validation = (
        [event.value for event in events.Scalars(name)]
        for name in ("train/loss", "validation/loss")
    )
    assert (len(training), len(validation)) == (12, 4)
    return training + validation


# In float32; other orders of sums grow from step to step.
def assert_same_curve(found, expected):
    assert found == pytest.approx(expected, rel=1e-5)


def test_statistics_over_all_processes(tmp_path, images):
    expected = losses(tmp_path, images, "", 1)
    for processes in (2, 4):
        found = losses(tmp_path, images, "", processes)
        assert_same_curve(found, expected)
    # It would show: those of each process alone give another curve.
    alone = "\nRecipe.sync_batch_norm = False"
    (tmp_path / "alone").mkdir()
    found = losses(tmp_path / "alone", images, alone, 2)
    assert found != pytest.approx(expected, rel=1e-2)


def test_in_parts_in_one_process_and_in_two(tmp_path, images):
    """Statistics are of a part: without norms it is the whole batch."""
    expected = losses(tmp_path, images, WITHOUT_NORMS, 1)
    for processes, accumulation in ((1, 3), (2, 2)):
        found = losses(tmp_path, images, WITHOUT_NORMS, processes, accumulation)
        assert_same_curve(found, expected)
