"""What TensorBoard gets: curves, and what the network attends to."""

from unittest import mock

import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator

import san
from tests.train import jobs
from tests.train.jobs import train_with as train


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def curves(folder):
    """TensorBoard's view of a run: (step, value) by name."""
    events = event_accumulator.EventAccumulator(str(folder.tensorboard))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_curves(tmp_path, images):
    folder = train(tmp_path / "run", images, "Recipe.log_every_steps = 2")
    found = curves(folder)
    assert [step for step, _ in found["train/loss"]] == [2, 4, 6, 8]
    assert [step for step, _ in found["validation/top1"]] == [4, 8]
    rates = [value for _, value in found["train/learning_rate"]]
    assert rates == pytest.approx([0.02, 0.02, 0.01, 0.01])
    for name in (
        *("top1", "images_per_second", "gradient_norm"),
        *("data_wait_share", "peak_process_mib"),
    ):
        assert len(found[f"train/{name}"]) == 4
    assert {"validation/loss", "validation/top5"} <= set(found)


def test_curves_of_a_resumed_run_have_no_doubles(tmp_path, images):
    folder = tmp_path / "run"
    settings = ["Recipe.log_every_steps = 1"]
    # Fails after 6 steps; its checkpoint is from after 4.
    failure = pytest.raises(RuntimeError, match="failed as asked")
    with jobs.interruption(6, []), failure:
        train(folder, images, *settings)
    resumed = train(folder, images, *settings)
    assert [step for step, _ in curves(resumed)["train/loss"]] == [*range(1, 9)]


def test_curves_stay_true_where_epochs_get_shorter(tmp_path, images):
    """Larger batches make fewer steps; what was drawn is not drawn over."""
    folder = tmp_path / "run"
    log = "Recipe.log_every_steps = 1"
    train(folder, images, log)
    larger = ["Recipe.batch_size = 13", "Recipe.epochs = 4"]
    resumed = train(folder, images, log, *larger)
    found = curves(resumed)
    assert [step for step, _ in found["train/loss"]] == [*range(1, 13)]
    assert [step for step, _ in found["validation/top1"]] == [4, 8, 10, 12]
    state = torch.load(resumed.last, weights_only=True)["state"]
    assert (state["total_steps"], state["total_images"]) == (12, 8 * 6 + 4 * 13)


def test_footprints_are_shown_every_few_epochs(tmp_path, images, capsys):
    pairwise = "SAN.attention = @PairwiseAttention"
    settings = ["Recipe.epochs = 5", "Recipe.look_every_epochs = 2", pairwise]
    folder = train(tmp_path / "run", images, *settings)
    events = event_accumulator.EventAccumulator(
        str(folder.tensorboard), size_guidance={"images": 0}
    )
    events.Reload()
    shown = events.Images("footprints")
    assert [image.step for image in shown] == [8, 16]
    assert folder.footprints.read_bytes().startswith(b"\x89PNG")
    assert "warning" not in capsys.readouterr().err
    never = train(tmp_path / "never", images, "Recipe.look_every_epochs = 0")
    assert not never.footprints.exists()


def test_looking_changes_nothing(tmp_path, images):
    looking = train(tmp_path / "one", images, "Recipe.look_every_epochs = 1")
    never = train(tmp_path / "two", images, "Recipe.look_every_epochs = 0")
    jobs.assert_same_bits(jobs.weights(looking), jobs.weights(never))


def test_a_network_that_cannot_be_looked_at_trains(tmp_path, images, capsys):
    def fail(*arguments):
        raise RuntimeError("not like this")

    with mock.patch.object(san, "attention_weights", fail):
        train(tmp_path / "run", images, "Recipe.look_every_epochs = 1")
    assert capsys.readouterr().err.count("no footprints are shown (not") == 1
    without = "create_model.name = @without_norms"
    looks = "Recipe.look_every_epochs = 1"
    folder = train(tmp_path / "without", images, without, looks)
    assert not folder.footprints.exists()
