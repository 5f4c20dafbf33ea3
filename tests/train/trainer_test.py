import os
import signal

import pytest
import torch

from tests.train import jobs
from tests.train.jobs import train_with as train
from train import metrics
from train.interruption import InterruptionError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def test_a_run_leaves_everything_and_prints_its_table(tmp_path, images, capsys):
    folder = train(tmp_path / "run", images)
    output = capsys.readouterr()
    assert "best" in output.out and "last" in output.out
    assert f"--workdir={folder.path}" in output.out
    assert output.err.count("\n") == 3
    assert "epoch 2/2" in output.err and "images/s" in output.err
    assert "Recipe.batch_size = 6" in folder.config.read_text()
    assert "Recipe.momentum = 0.9" in folder.operative.read_text()
    checkpoint = torch.load(folder.last, weights_only=True)
    assert checkpoint["epoch"] == 2
    assert checkpoint["classes"] == ["a", "b", "c"]
    assert not any(
        name.startswith("module.") for name in checkpoint["state_dict"]
    )
    assert checkpoint["state_dict"]["fc.weight"].shape[0] == 3
    for name in ("optimizer", "scheduler", "top1_val", "top5_val"):
        assert name in checkpoint
    assert checkpoint["top5_val"] == 100.0
    best = torch.load(folder.best, weights_only=True)
    assert best["top1_val"] == checkpoint["state"]["best"]["top1"]
    assert best["epoch"] == checkpoint["state"]["best"]["epoch"]


def test_two_runs_give_the_same_bits(tmp_path, images):
    one = train(tmp_path / "one", images)
    other = train(tmp_path / "other", images)
    jobs.assert_same_bits(jobs.weights(one), jobs.weights(other))
    different = train(tmp_path / "different", images, "Recipe.seed = 1")
    assert not torch.equal(
        jobs.weights(one)["fc.weight"], jobs.weights(different)["fc.weight"]
    )


@pytest.mark.parametrize("step", range(1, 8))
def test_resumed_is_uninterrupted(tmp_path, images, expected, step):
    """Stopped within, at the end of and between two epochs of 4 steps."""
    folder = tmp_path / "run"
    with (
        jobs.interruption(step),
        pytest.raises(
            InterruptionError, match=r"same command .*last\.pth"
        ) as stop,
    ):
        train(folder, images)
    assert stop.value.exit_code == 128 + signal.SIGTERM
    checkpoint = torch.load(folder / "checkpoints/last.pth", weights_only=True)
    stopped = 4 * checkpoint["epoch"] + checkpoint["state"]["step"]
    assert stopped == step
    resumed = train(folder, images)
    jobs.assert_same_bits(jobs.weights(expected), jobs.weights(resumed))
    assert figures(resumed) == figures(expected)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, images):
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("expected") / "run", images)


def figures(folder):
    """What the results table is made of, but for the time."""
    state = torch.load(folder.last, weights_only=True)["state"]
    return {name: state[name] for name in ("epoch", "step", "latest", "best")}


def test_resumed_twice_with_mixup_and_checkpoints(tmp_path, images):
    settings = ["Recipe.mixup_alpha = 0.5", "Recipe.save_every_steps = 2"]
    whole = train(tmp_path / "whole", images, *settings)
    for step in (3, 3):
        with jobs.interruption(step), pytest.raises(InterruptionError):
            train(tmp_path / "run", images, *settings)
    resumed = train(tmp_path / "run", images, *settings)
    jobs.assert_same_bits(jobs.weights(whole), jobs.weights(resumed))


def test_signals_act_as_before_afterwards(tmp_path, images):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with jobs.interruption(1), pytest.raises(InterruptionError):
        train(tmp_path / "run", images)
    after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert before == after


def test_a_finished_run_prints_its_table_again(tmp_path, images, capsys):
    folder = train(tmp_path / "run", images)
    table = capsys.readouterr().out
    written = folder.last.stat().st_mtime_ns
    train(tmp_path / "run", images)
    assert capsys.readouterr().out == table
    assert folder.last.stat().st_mtime_ns == written


def test_an_infinite_loss_stops_training(tmp_path, images):
    folder = tmp_path / "run"
    with pytest.raises(
        FloatingPointError,
        match=r"loss must stay finite, got \w+ at epoch 1, step [2-4]\D.*"
        r"learning rate of 1e\+30.*lower Recipe\.learning_rate.*'float32'\.$",
    ):
        train(folder, images, "Recipe.learning_rate = 1e30")
    assert not (folder / "checkpoints/last.pth").exists()
    train(folder, images, "Recipe.epochs = 1")
    with pytest.raises(FloatingPointError, match=r"run is from before that\.$"):
        train(folder, images, "Recipe.learning_rate = 1e30")


def test_weights_that_are_not_finite_are_not_saved(tmp_path, images):
    folder = tmp_path / "run"
    # The loss of the only step is that of the initial weights.
    with pytest.raises(FloatingPointError, match="weights must stay finite"):
        train(
            folder,
            images,
            "Recipe.learning_rate = 1e38",
            "Recipe.weight_decay = 1e5",
            "Recipe.batch_size = 27",
        )
    assert not (folder / "checkpoints/last.pth").exists()


def test_bfloat16_and_no_smoothing_train(tmp_path, images):
    folder = train(
        tmp_path / "run",
        images,
        "Recipe.precision = 'bfloat16'",
        "Recipe.label_smoothing = 0.0",
    )
    assert all(
        tensor.isfinite().all() for tensor in jobs.weights(folder).values()
    )


@pytest.mark.parametrize("accumulation", [2, 3])
def test_a_batch_in_parts_is_the_batch(tmp_path, images, accumulation):
    settings = [
        "create_model.name = @without_norms",
        "Recipe.mixup_alpha = 0.5",
        "Recipe.batch_size = 7",
        "Recipe.log_every_steps = 1",
    ]
    whole = train(tmp_path / "whole", images, *settings)
    parts = train(
        tmp_path / "parts",
        images,
        *settings,
        f"Recipe.accumulation = {accumulation}",
    )
    torch.testing.assert_close(jobs.weights(parts), jobs.weights(whole))
    for expected, found in zip(losses(whole), losses(parts), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def losses(folder):
    """Those of all steps, logged one by one."""
    lines = metrics.read(folder.metrics)
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_more_parts_than_pairs_of_images(tmp_path, images):
    with pytest.raises(ValueError, match=r"half the images .* 6, got 4"):
        train(tmp_path / "run", images, "Recipe.accumulation = 4")


def test_without_images_it_says_how_to_get_some(tmp_path):
    with pytest.raises(ValueError) as error:
        train(tmp_path / "run", None)
    message = str(error.value)
    for part in (
        "--data_dir must name a folder",
        "DATA_DIR/train/n01440764/",
        "DATA_DIR/val/n01440764/",
        "--gin_file=san10_pair.gin --data_dir=",
        "--gin_file=san10_pair.gin --gin_file=digits.gin",
    ):
        assert part in message
    assert not (tmp_path / "run").exists()


def test_a_wrong_network_is_found_before_the_images_are_read(tmp_path):
    with pytest.raises(ValueError, match="create_model: name must be one of"):
        train(
            tmp_path / "run", tmp_path / "none", "create_model.name = 'san11'"
        )


def test_a_batch_larger_than_the_images(tmp_path, images):
    with pytest.raises(ValueError, match="batch_size must be at most 27"):
        train(tmp_path / "run", images, "Recipe.batch_size = 28")


def test_a_folder_that_replaces_no_files_is_found_before_training(
    tmp_path, images, monkeypatch
):
    folder = train(tmp_path / "run", images)
    before = folder.last.read_bytes()

    def replace(old, new):
        raise FileExistsError(17, "File exists", str(old), None, str(new))

    with jobs.interruption(1, signals=()):  # No step is taken.
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match=r"run must be a folder in which a f"):
            train(folder.path, images, "Recipe.epochs = 3")
    assert folder.last.read_bytes() == before


def test_a_used_folder_keeps_other_runs_out(tmp_path, images):
    jobs.configure(tmp_path)
    with (
        jobs.WorkFolder(tmp_path / "run").owned(),
        pytest.raises(ValueError, match="in use by another run"),
    ):
        jobs.train(tmp_path / "run", images)
