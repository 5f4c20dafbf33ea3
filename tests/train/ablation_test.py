"""The ablation as a user starts it, with a tiny network and few images."""

import fcntl
import json
import os
import signal
import time

import pytest

from tests.train import jobs

# Rows of table 4 with a block of their own each.
ROWS = ("table4/pair/subtraction", "table4/patch/concatenation")
FOLDERS = [f"{row.replace('/', '-')}/seed0" for row in ROWS]

SETTINGS = """
RowSize.num_blocks = (1, 1)
RowSize.widths = (32, 32)
Data.image_size = 12
Data.resize_size = 14
Data.num_threads = 1
Recipe.batch_size = 6
Recipe.epochs = 3
Recipe.learning_rate = 0.02
Recipe.save_every_steps = 2
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """The work folder of an ablation that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    code, stdout, stderr = jobs.run(
        "train.ablation", *arguments(folder, images)
    )
    assert code == 0, stderr
    (folder / "stdout").write_text(stdout)
    (folder / "stderr").write_text(stderr)
    return folder


def arguments(folder, images, *more, settings=SETTINGS):
    """The command line of a short ablation."""
    gin_file = folder.parent / f"{folder.name}.gin"
    gin_file.write_text(settings)
    return [
        "--table=4",
        f"--rows={','.join(ROWS)}",
        f"--gin_file={gin_file}",
        f"--data_dir={images}",
        f"--workdir={folder}",
        "--num_parallel=1",
        *more,
    ]


def last(folder, number):
    """The checkpoint of a row."""
    return folder / FOLDERS[number] / "checkpoints" / "last.pth"


def wait_for(process, path):
    while not path.exists():
        assert process.poll() is None, jobs.finish(process)
        time.sleep(0.002)


def wait_until_unlocked(folder):
    """Waits until the run in a work folder is gone, with its parent."""
    folder.joinpath(".lock").touch()
    with open(folder / ".lock") as lock:
        deadline = time.monotonic() + 60
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def assert_same_result(folder, expected):
    for number in range(len(ROWS)):
        found, known = (
            jobs.weights(jobs.WorkFolder(root / FOLDERS[number]))
            for root in (folder, expected)
        )
        jobs.assert_same_bits(found, known)
    for name in ("ablation.json", "ablation.png"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def test_help_is_worth_reading():
    code, stdout, _ = jobs.run("train.ablation", "--help")
    assert code in (0, 1)  # absl's own choice.
    for part in (
        "--table=4 --kind=pair",
        "digits_small.gin",
        "--seeds",
        "--folds",
        "--num_parallel",
        "Run the same command again and it goes on",
        "last epoch",
        "Exit codes",
    ):
        assert part in stdout


def test_table_json_and_plot(whole, images):
    figures = json.loads((whole / "ablation.json").read_text())
    assert figures["data"] == str(images)
    assert (figures["seeds"], figures["folds"]) == (1, 0)
    table = (whole / "stdout").read_text()
    assert str(images) in table and "ImageNet, published" in table
    for row, name in zip(figures["rows"], ROWS, strict=True):
        assert (row["row"], row["table"], row["error"]) == (name, "4", None)
        measured = row["measured"]
        (run,) = measured["runs"]
        assert (run["seed"], run["fold"], run["epoch"]) == (0, None, 3)
        assert measured["top1"] == run["top1"]
        assert measured["num_images"] == run["num_images"] == 15
        assert measured["data"] == str(images)
        low, high = measured["interval"]
        assert 0 <= low <= measured["top1"] <= high <= 100
        assert measured["spread"] is None
        assert f"{row['published_top1']}%" in table
        assert f"{measured['top1']:.2f}%" in table
    assert (whole / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_progress_and_messages(whole):
    lines = (whole / "stderr").read_text().splitlines()
    assert lines[0] == "2 runs, 0 of them complete, 1 at a time"
    assert lines[1].startswith(f"row 1 of 2, seed 1 of 1: {ROWS[0]}: training")
    assert lines[-1].startswith(f"row 2 of 2, seed 1 of 1: {ROWS[1]}: top-1 ")
    for folder in FOLDERS:
        assert "epoch 3/3" in (whole / folder / "log.txt").read_text()


def test_a_second_time_nothing_is_trained(whole, images):
    files = [last(whole, 0), last(whole, 1), whole / "ablation.json"]
    before = [path.read_bytes() for path in files]
    times = [path.stat().st_mtime_ns for path in files[:2]]
    code, stdout, stderr = jobs.run("train.ablation", *arguments(whole, images))
    assert code == 0
    assert stdout == (whole / "stdout").read_text()
    assert stderr == "2 runs, 2 of them complete, 1 at a time\n"
    assert [path.read_bytes() for path in files] == before
    assert [path.stat().st_mtime_ns for path in files[:2]] == times


def test_killed_within_and_between_rows_it_goes_on(tmp_path, images, whole):
    folder = tmp_path / "run"
    # Within the first row, then when the second has begun.
    moments = (last(folder, 0), folder / FOLDERS[1] / "log.txt")
    for number, path in enumerate(moments):
        process = jobs.start("train.ablation", *arguments(folder, images))
        wait_for(process, path)
        process.kill()
        jobs.finish(process)
        wait_until_unlocked(folder / FOLDERS[number])
        assert not (folder / "ablation.json").exists()
    code, _, stderr = jobs.run("train.ablation", *arguments(folder, images))
    assert code == 0, stderr
    assert "2 runs, 1 of them complete" in stderr
    assert "going on after" in (folder / FOLDERS[0] / "log.txt").read_text()
    assert_same_result(folder, whole)


def test_ctrl_c_stops_all_runs_which_save(tmp_path, images):
    folder = tmp_path / "run"
    more = ["--gin_param=Recipe.epochs=100000", "--num_parallel=2"]
    process = jobs.start("train.ablation", *arguments(folder, images, *more))
    for row in range(2):
        wait_for(process, last(folder, row))
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = jobs.finish(process)
    assert code == 130
    assert "stopped with 2 runs left. The same command goes on" in stderr
    assert "Traceback" not in stderr and not stdout
    for name in FOLDERS:
        assert "stopped in" in (folder / name / "log.txt").read_text()


def test_a_row_that_fails_is_reported_and_the_others_go_on(tmp_path, images):
    folder = tmp_path / "run"
    broken = last(folder, 0)
    broken.parent.mkdir(parents=True)
    broken.write_text("no checkpoint")
    code, stdout, stderr = jobs.run(
        "train.ablation", *arguments(folder, images, "--seeds=2")
    )
    assert code == 1
    assert "Traceback" not in stderr
    assert f"row 1 of 2, seed 1 of 2: {ROWS[0]}: failed: " in stderr
    assert f"failed: {ROWS[0]}: " in stdout and str(broken) in stdout
    # Its other runs are not even tried.
    assert "row 1 of 2, seed 2 of 2" not in stderr
    first, second = json.loads((folder / "ablation.json").read_text())["rows"]
    assert first["measured"] is None and str(broken) in first["error"]
    assert len(second["measured"]["runs"]) == 2
    assert second["measured"]["spread"] is not None


def test_runs_with_other_settings_are_refused(whole, images, tmp_path):
    before = last(whole, 0).read_bytes()
    other = jobs.write_images(tmp_path / "other")
    for data_dir, more, message in (
        (
            images,
            ["--gin_param=Recipe.momentum=0.8"],
            "+ Recipe.momentum = 0.8",
        ),
        (other, [], f"- {images}; + {other}"),
    ):
        code, stdout, stderr = jobs.run(
            "train.ablation", *arguments(whole, data_dir, *more)
        )
        assert code == 2 and not stdout
        assert stderr.startswith("error: ablation: --workdir must hold runs")
        assert message in stderr and "give another --workdir" in stderr
    assert last(whole, 0).read_bytes() == before


def test_folds_of_the_digits_are_pooled(tmp_path):
    settings = 'include "digits.gin"\nwrite_digits.image_side = 12' + SETTINGS
    folder = tmp_path / "run"
    gin_file = tmp_path / "digits12.gin"
    gin_file.write_text(settings)
    code, _, stderr = jobs.run(
        "train.ablation",
        "--table=4",
        f"--rows={ROWS[0]}",
        "--folds=2",
        f"--gin_file={gin_file}",
        "--batch_size=64",
        "--gin_param=Recipe.epochs=1",
        "--gin_param=Recipe.warmup_epochs=0",
        "--gin_param=Data.resize_size=12",
        f"--workdir={folder}",
    )
    assert code == 0, stderr
    assert "row 1 of 1, seed 1 of 1, fold 2 of 2" in stderr
    figures = json.loads((folder / "ablation.json").read_text())
    assert "digits (2 of 5 folds)" in figures["data"]
    measured = figures["rows"][0]["measured"]
    correct = [run["top1"] * run["num_images"] for run in measured["runs"]]
    assert [run["fold"] for run in measured["runs"]] == [0, 1]
    assert measured["num_images"] == 720
    assert measured["top1"] == pytest.approx(sum(correct) / 720)
    # One copy of each fold's images serves all its runs.
    assert sorted(os.listdir(folder / "data")) == [
        f"digits_12px_quality95_fold{fold}" for fold in range(2)
    ]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (["--table=9"], "--table must be of 3, 4, 5, 6, 7, 8, 5.3, got '9'"),
        (["--folds=5"], "--folds must be left out"),
        (["--gin_param=Recipe.epoch=5"], "did you mean 'epochs'?"),
        (["table4"], "must be a flag"),
    ],
)
def test_mistakes_are_one_clear_message(tmp_path, images, mistake, message):
    code, stdout, stderr = jobs.run(
        "train.ablation", *arguments(tmp_path / "run", images, *mistake)
    )
    assert code == 2 and not stdout
    assert stderr.startswith("error: ") and message in stderr
    assert "Traceback" not in stderr
