import json
import shutil

import numpy as np
import pytest
import torch

from eval import command_line, evaluation, outcomes, report
from san import data
from tests.train import jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"), num_classes=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A trained work folder."""
    folder = tmp_path_factory.mktemp("run")
    jobs.configure(folder, "Recipe.learning_rate = 0.05")
    return jobs.train(folder / "run", images)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    jobs.configure(tmp_path)


def latest(folder):
    """Training's last validation."""
    return torch.load(folder.last, weights_only=True)["state"]["latest"]


def assert_figures(found, expected):
    assert found.result.top1 == expected["top1"]
    assert found.result.top5 == expected["top5"]
    assert found.result.loss == pytest.approx(expected["loss"], rel=1e-6)
    assert found.result.num_images == expected["num_images"] == 30


def test_own_checkpoint_equals_training(run):
    found = jobs.evaluate(run.last, run.path)
    assert_figures(found, latest(run))
    assert (found.epoch, found.classes) == (2, list("abcdef"))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batch_size_changes_nothing(run, batch_size):
    found = jobs.evaluate(run.last, batch_size=batch_size)
    assert_figures(found, latest(run))


def test_other_settings_are_announced(tmp_path, run, capsys):
    jobs.evaluate(run.last)
    assert "warning" not in capsys.readouterr().err
    jobs.configure(tmp_path, "Data.resize_size = 16", "Recipe.epochs = 9")
    jobs.evaluate(run.last)
    assert capsys.readouterr().err == (
        "warning: Data.resize_size is 16; the network was trained with 14\n"
    )


def test_published_checkpoint_equals_training(tmp_path, run, images):
    state_dict = jobs.weights(run)
    published = {
        "state_dict": {f"module.{name}": w for name, w in state_dict.items()},
        "epoch": 100,
        "optimizer": {},
        "scheduler": {},
        "top1_val": 0.0,
        "top5_val": 0.0,
    }
    path = tmp_path / "published.pth"
    torch.save(published, path)
    found = jobs.evaluate(path, data_dir=images)
    assert_figures(found, latest(run))
    assert found.epoch == 100


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": 6},
        {"classes": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}},
        {"classes": dict.fromkeys(range(6), "a")},
        {"classes": {"a": [0], "b": None}, "class_to_idx": []},
        {"settings": {"lr": 0.1}, "epoch": "3"},
        {"settings": [1], "recipe": "mine", "epoch": torch.tensor(3)},
        {"data_dir": 3, "epoch": 2.5},
    ],
)
def test_what_other_tools_say_beside_the_weights(
    tmp_path, run, images, capsys, beside
):
    path = tmp_path / "other.pth"
    torch.save({"model": jobs.weights(run)} | beside, path)
    found = jobs.evaluate(path, data_dir=images)
    assert_figures(found, latest(run))
    assert json.loads(report.as_json(found))["epoch"] is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the checkpoint does not name its classes")


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": tuple("abcdef")},
        {
            "classes": 6,
            "class_to_idx": {name: "abcdef".index(name) for name in "bafedc"},
        },
    ],
)
def test_other_ways_to_name_the_classes(tmp_path, run, images, capsys, beside):
    path = tmp_path / "other.pth"
    torch.save({"model": jobs.weights(run)} | beside, path)
    found = jobs.evaluate(path, data_dir=images)
    assert_figures(found, latest(run))
    assert capsys.readouterr().err == ""


def test_weights_alone_equal_training(tmp_path, run, images):
    path = tmp_path / "weights.pth"
    torch.save(jobs.weights(run), path)
    found = jobs.evaluate(path, data_dir=images)
    assert_figures(found, latest(run))


def test_a_config_brings_its_own_images(tmp_path):
    digits = [
        "Data.source = @write_digits",
        "write_digits.image_side = 12",
        "Recipe.epochs = 1",
        "Recipe.batch_size = 400",
    ]
    jobs.configure(tmp_path, *digits)
    run = jobs.train(tmp_path / "run", None)
    for workdir in (run.path, None):
        found = jobs.evaluate(run.last, workdir)
        assert found.result.top1 == latest(run)["top1"]
        assert found.result.num_images == 360


def test_images_must_have_the_networks_classes(tmp_path, run):
    fewer = jobs.write_images(tmp_path / "fewer", num_classes=2)
    with pytest.raises(
        ValueError, match=r"network's 6 classes, got 2 class folders in .*fewer"
    ):
        jobs.evaluate(run.last, data_dir=fewer)


def test_images_must_have_the_trained_classes(tmp_path, run, images):
    others = tmp_path / "others"
    shutil.copytree(images, others)
    for split in ("train", "val"):
        (others / split / "f").rename(others / split / "z")
    with pytest.raises(ValueError, match="got 'z' in place of 'f' as class 5"):
        jobs.evaluate(run.last, data_dir=others)


def test_images_that_are_gone(tmp_path, run):
    checkpoint = torch.load(run.last, weights_only=True)
    checkpoint["data_dir"] = "/gone"
    path = tmp_path / "moved.pth"
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError, match=r"--data_dir must .* /gone, which is gone"
    ):
        jobs.evaluate(path)
    torch.save(jobs.weights(run), path)
    with pytest.raises(ValueError, match=r"--data_dir must .* got none"):
        jobs.evaluate(path)


def test_a_damaged_checkpoint_names_what_is_whole(tmp_path, run):
    folder = shutil.copytree(run.path, tmp_path / "run")
    best = folder / "checkpoints" / "best.pth"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"best\.pth, which is damaged: .*; epoch\.pth, last-1\.pth,"
        r" last\.pth can be evaluated instead, by --gin_file=\S+/run/config\.gin"
        r" --checkpoint=\S+/run/checkpoints/epoch\.pth$",
    ):
        jobs.evaluate(best, folder)
    with pytest.raises(ValueError, match=r"not the one it names$"):
        jobs.evaluate(best)


def test_a_checkpoint_without_a_classifier(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
    with pytest.raises(
        ValueError, match=r"must hold the matrix fc\.weight.*other\.pth"
    ):
        jobs.evaluate(path)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("SAN.widths = (32, 64)", r"widths \[32, 32\] instead of \[32, 64\]"),
        # Weights of another footprint have the same shapes.
        (
            "SAN.kernel_sizes = (3, 5)",
            r"kernel_sizes \[3, 3\] instead of \[3, 5\]",
        ),
    ],
)
def test_a_checkpoint_of_another_network(tmp_path, run, binding, message):
    jobs.configure(tmp_path, binding)
    with pytest.raises(ValueError, match=message):
        jobs.evaluate(run.last)


def test_a_checkpoint_that_does_not_say_of_which_network(tmp_path, run):
    checkpoint = torch.load(run.last, weights_only=True)
    del checkpoint["architecture"]
    torch.save(checkpoint, tmp_path / "older.pth")
    jobs.configure(tmp_path, "SAN.widths = (32, 64)")
    with pytest.raises(ValueError, match=r"misshapen: conv1\.weight"):
        jobs.evaluate(tmp_path / "older.pth")


def test_json_has_every_figure(run):
    found = jobs.evaluate(run.last)
    figures = json.loads(report.as_json(found))
    assert figures["top1"] == found.result.top1
    assert figures["top5"] == found.result.top5
    assert figures["loss"] == found.result.loss
    assert figures["num_images"] == 30
    assert figures["images_per_second"] > 0
    assert list(figures["per_class"]) == list("abcdef")
    by_class = figures["per_class"].values()
    assert all(row["num_images"] == 5 for row in by_class)
    for name in ("top1", "top5"):
        mean = sum(row[name] for row in by_class) / 6
        assert mean == pytest.approx(figures[name])


def example(num_classes):
    """An evaluation in which class i has i correct of num_classes.

    The wrong ones are taken for the next class, all with 90%.
    """
    labels = np.repeat(np.arange(num_classes), num_classes)
    wrong = np.tile(np.arange(num_classes), num_classes) >= labels
    classes = [f"class_{label:03}" for label in range(num_classes)]
    count = len(labels)
    return evaluation.Evaluation(
        "best.pth",
        3,
        "san10_pair",
        data.ImageIndex(
            "/images",
            "val",
            classes,
            [f"val/{classes[label]}/{i}.jpg" for i, label in enumerate(labels)],
            labels,
            np.full(count, 30),
            np.full(count, 40),
        ),
        data.Data(),
        evaluation.validation.Result(
            loss=1.5,
            images=[num_classes] * num_classes,
            correct1=list(range(num_classes)),
            correct5=[num_classes] * num_classes,
            seconds=2.0,
        ),
        outcomes.Outcomes(
            labels,
            (labels + wrong) % num_classes,
            np.full(count, 0.9),
            np.where(wrong, 0.05, 0.9),
            wrong.astype(np.int64),
        ),
    )


def test_text_by_hand():
    lines = report.as_text(example(2)).splitlines()
    assert lines == [
        "best.pth (epoch 3)",
        "top-1    25.00%",
        "top-5   100.00%",
        "loss     1.5000",
        "ECE      65.00%    mean confidence 90.00%",
        "images     4    2 images/s",
        "",
        "class      images    top-1    top-5",
        "class_000       2    0.00%  100.00%",
        "class_001       2   50.00%  100.00%",
    ]


def test_of_many_classes_the_worst_and_the_best_are_printed():
    lines = report.as_text(example(100)).splitlines()[8:]
    assert [line.split()[0] for line in lines] == [
        *(f"class_{label:03}" for label in range(5)),
        "...",
        *(f"class_{label:03}" for label in range(95, 100)),
    ]
    assert "90 classes" in lines[5]


def test_images_that_were_named_in_training_come_before_a_source(tmp_path, run):
    # The configuration of a digits run that was given --data_dir.
    jobs.configure(tmp_path, "Data.source = @write_digits")
    found = jobs.evaluate(run.last, run.path)
    assert_figures(found, latest(run))


def test_classes_are_read_from_a_matrix(tmp_path):
    path = tmp_path / "odd.pth"
    torch.save({"fc.weight": torch.zeros(())}, path)
    with pytest.raises(ValueError, match=r"matrix fc.weight.*got shape \[\]"):
        jobs.evaluate(path)


def test_what_was_bound_after_the_checkpoint_does_not_count(tmp_path, images):
    """The best one is of before; config.gin is of the last run."""
    jobs.configure(tmp_path, "Recipe.epochs = 3", "Recipe.learning_rate = 0.05")
    folder = jobs.train(tmp_path / "run", images)
    best = torch.load(folder.best, weights_only=True)["state"]["best"]
    worse = ["Recipe.learning_rate = 9.0", "Data.mean = (0.0, 0.9, 0.9)"]
    jobs.configure(tmp_path, "Recipe.epochs = 4", *worse)
    jobs.train(tmp_path / "run", images)
    assert "Data.mean" in folder.config.read_text()
    command_line.select([str(folder.path)], [], "best")[0].configure([], [])
    found = jobs.evaluate(folder.best, folder.path)
    assert found.settings.mean == data.Data.mean
    assert found.result.loss == pytest.approx(best["loss"])


def test_another_fold_is_evaluated_where_it_is_asked_for(tmp_path):
    small = ["Data.source = @write_digits", "write_digits.image_side = 12"]
    batch = ["Recipe.batch_size = 700", "Recipe.epochs = 1"]
    jobs.configure(tmp_path, *small, *batch, "digits.fold = 1")
    folder = jobs.train(tmp_path / "run", None)
    found = jobs.evaluate(folder.last, folder.path)
    jobs.configure(tmp_path, *small, "digits.fold = 2")
    other = jobs.evaluate(folder.last, folder.path)
    assert other.index.root != found.index.root
    assert other.result.loss != found.result.loss


def test_weights_that_are_no_numbers_are_refused(tmp_path, run):
    checkpoint = torch.load(run.last, weights_only=True)
    checkpoint["state_dict"]["fc.weight"][3, 5] = float("nan")
    checkpoint["state_dict"]["bn_in.running_var"][0] = float("inf")
    path = tmp_path / "nan.pth"
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError,
        match=r"weights must be finite, got .* in bn_in.running_var, fc.weight"
        r" in .*nan.pth",
    ):
        jobs.evaluate(path)


def test_logits_that_overflow_have_no_accuracy(tmp_path, run):
    checkpoint = torch.load(run.last, weights_only=True)
    checkpoint["state_dict"]["fc.weight"].fill_(3e38)  # Each is finite.
    path = tmp_path / "large.pth"
    torch.save(checkpoint, path)
    with pytest.raises(
        FloatingPointError, match=r"logits must be finite, got a loss of nan"
    ):
        jobs.evaluate(path)
