"""The training job as a user starts it."""

import json
import random
import signal
import time

import pytest
import torch

from tests.train import jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def test_help_is_worth_reading():
    code, stdout, _ = jobs.run("train.main", "--help")
    assert code in (0, 1)  # absl's own choice.
    for part in (
        "--gin_file=san10_pair.gin --data_dir=",
        "--gin_file=san10_pair.gin --gin_file=digits.gin",
        "train/CLASS/",
        "--gin_param",
        "--workdir",
        "--batch_size",
        "--epochs",
        "--[no]resume",
        "Exit codes",
    ):
        assert part in stdout


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["san10_pair.gin"], ["must be a flag", "'san10_pair.gin'"]),
        (["--gin_file=san10_pair.gin"], ["DATA_DIR/train/", "digits.gin"]),
        (["--data_dir=."], ["create_model", "--gin_file", "san10_pair.gin"]),
        (
            ["--gin_file=resnet26.gin", "--epochs=0", "--data_dir=."],
            ["Recipe: epochs must be an integer of at least 1, got 0"],
        ),
    ],
)
def test_mistakes_are_one_clear_message(tmp_path, arguments, messages):
    code, stdout, stderr = jobs.run(
        "train.main",
        *arguments,
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 2
    assert stderr.startswith("error: ")
    assert "Traceback" not in stderr
    assert "In call to configurable" not in stderr
    for message in messages:
        assert message in stderr
    assert not stdout


def arguments(tmp_path, images, *more):
    """The command line of a short run."""
    return [
        f"--gin_file={jobs.write_settings(tmp_path)}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
        "--epochs=12",
        *more,
    ]


def finished(tmp_path, images, *more):
    """Runs to the end; the weights and the table."""
    code, stdout, stderr = jobs.run(
        "train.main", *arguments(tmp_path, images, *more)
    )
    assert code == 0, stderr
    return jobs.weights(jobs.WorkFolder(tmp_path / "run")), stdout


def test_a_row_of_the_paper_has_a_folder_of_its_own(tmp_path, images):
    (tmp_path / "tiny.gin").write_text(
        "RowSize.num_blocks = (1, 1)\n"
        "RowSize.widths = (32, 32)\n"
        "Data.image_size = 12\n"
        "Data.num_threads = 1\n"
    )
    code, _, stderr = jobs.run(
        "train.main",
        "--gin_file=table4/pair/hadamard.gin",
        "--gin_file=tiny.gin",
        f"--data_dir={images}",
        "--batch_size=9",
        "--epochs=1",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 0, stderr
    folder = tmp_path / "runs" / "table4-pair-hadamard-tiny"
    assert "table4/pair/hadamard" in (folder / "config.gin").read_text()


def test_killed_at_any_moment_it_goes_on(tmp_path, images):
    (tmp_path / "whole").mkdir()
    start = time.monotonic()
    expected, _ = finished(tmp_path / "whole", images)
    seconds = time.monotonic() - start
    rng = random.Random(0)
    for place in (0.5, 0.7, 0.9):
        process = jobs.start(
            "train.main",
            *arguments(
                tmp_path, images, "--gin_param=Recipe.save_every_steps=2"
            ),
        )
        time.sleep(seconds * (place + rng.uniform(-0.1, 0.1)))
        process.kill()
        jobs.finish(process)
    found, _ = finished(
        tmp_path, images, "--gin_param=Recipe.save_every_steps=2"
    )
    jobs.assert_same_bits(expected, found)


def test_stopped_by_a_signal_it_says_how_to_go_on(tmp_path, images):
    process = jobs.start(
        "train.main", *arguments(tmp_path, images, "--epochs=100000")
    )
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    while process.poll() is None and not last.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = jobs.finish(process)
    assert code == 130
    assert f"The same command goes on from there: {last}" in stderr
    assert "Traceback" not in stderr
    assert not stdout
    saved = torch.load(last, weights_only=True)
    assert saved["epoch"] or saved["state"]["step"]


def test_trained_and_evaluated_to_the_same_figures(tmp_path, images):
    settings = jobs.write_settings(tmp_path)
    folder = tmp_path / "runs" / "small"
    code, stdout, stderr = jobs.run(
        "train.main",
        f"--gin_file={settings.name}",
        "--data_dir=images",
        "--batch_size=5",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 2 and f"{tmp_path / 'images'} does not exist" in stderr
    code, stdout, stderr = jobs.run(
        "train.main",
        f"--gin_file={settings.name}",
        f"--data_dir={images}",
        "--batch_size=5",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 0, stderr
    # Lines are for people: the network, two epochs, no flood.
    network, *epochs = stderr.splitlines()
    assert "parameters on cpu, attention backend 'fastest'" in network
    assert len(epochs) == 2
    best = torch.load(folder / "checkpoints/best.pth", weights_only=True)
    assert f"{best['top1_val']:.2f}%" in stdout
    code, stdout, stderr = jobs.run(
        "eval.imagenet",
        "--workdir=runs/small",
        "--json=figures.json",
        BUILD_WORKING_DIRECTORY=str(tmp_path),
    )
    assert code == 0, stderr
    assert f"top-1   {best['top1_val']:6.2f}%" in stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    latest = best["state"]["latest"]
    for name in ("top1", "top5", "loss", "num_images"):
        assert figures[name] == latest[name], name
