import os
import re
import signal
from unittest import mock

import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator

import san
from tests.train import jobs
from train.interruption import InterruptionError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def train(folder, images, *params, resume=True):
    """Configures and trains."""
    jobs.configure(folder.parent, *params)
    return jobs.train(folder, images, resume)


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


def test_a_finished_run_prints_its_table_again(tmp_path, images, capsys):
    folder = train(tmp_path / "run", images)
    table = capsys.readouterr().out
    written = folder.last.stat().st_mtime_ns
    train(tmp_path / "run", images)
    assert capsys.readouterr().out == table
    assert folder.last.stat().st_mtime_ns == written


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
    for (_, expected), (_, found) in zip(
        curves(whole)["train/loss"], curves(parts)["train/loss"], strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-5)


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
