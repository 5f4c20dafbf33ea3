"""--dry_run: it says what training would do, and leaves no trace."""

import hashlib
import pathlib
import re

import gin
import pytest
import torch

from san.data import DataError
from san.jobs.processes import Process
from tests.train import forked, jobs
from train import job, memory, rehearsal
from train.interruption import Interruption, InterruptionError
from train.work_folder import WorkFolder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


@gin.configurable(module="tests")
def write_pictures(work_folder):
    folder = pathlib.Path(work_folder) / "pictures"
    if not folder.exists():
        jobs.write_images(folder)
    return str(folder)


@pytest.fixture
def rehearse(tmp_path, images, capsys):
    """Rehearses in a work folder: stdout, stderr."""

    def call(folder, *params, data_dir=images, resume=True):
        jobs.configure(tmp_path, *params)
        capsys.readouterr()
        job.rehearse(
            WorkFolder(folder),
            data_dir and str(data_dir),
            resume,
            Process(),
            Interruption(),
        )
        return capsys.readouterr()

    return call


def traces(folder):
    """Everything that can be seen of a folder."""
    return {
        path: (
            path.stat().st_mtime_ns,
            path.is_file() and hashlib.sha256(path.read_bytes()).digest(),
        )
        for path in [folder, *folder.rglob("*")]
    }


def mib(text, what):
    return float(re.search(rf"([\d.,]+)  {re.escape(what)}\n", text)[1])


def test_in_a_new_folder_it_makes_none(rehearse, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    said, _ = rehearse(tmp_path / "runs" / "new", "Recipe.epochs = 3")
    assert not (tmp_path / "runs").exists()
    assert not any((tmp_path / "scratch").glob("dry_run_*"))
    for part in (
        "Recipe.batch_size = 6\n",
        "Recipe.momentum = 0.9\n",  # Bound by nobody.
        " parameters on cpu, attention backend 'fastest'\n",
        "for an image of 12 x 12\n",
        "images: 27 to train, 15 to validate, of 3 classes, in ",
        "//tools:data_doctor decodes all",
        "steps: 4 in an epoch, of 6 images in 1 process\n",
        "learning rate over 3 epochs:\n     0.02 |*\n",
        "not warm",
    ):
        assert part in said, part
    assert said.splitlines()[-1] == (
        "would train 3 epochs = 12 steps, from the beginning, in"
        f" {tmp_path / 'runs' / 'new'}"
    )


def test_memory_is_that_of_the_step(rehearse, tmp_path):
    wide = ["SAN.widths = (512, 512)", "Data.image_size = 24"]
    whole, _ = rehearse(tmp_path / "run", *wide, "Data.resize_size = 24")
    parameters = int(re.search(r"with ([\d,]+)", whole)[1].replace(",", ""))
    for what in ("gradients", "the optimiser's state"):
        assert mib(whole, what) == pytest.approx(
            4 * parameters / 2**20, abs=0.06
        )
    assert mib(whole, "parameters and buffers") >= mib(whole, "gradients")
    kept = mib(whole, "kept for the backward pass")
    parts, _ = rehearse(
        tmp_path / "run",
        *wide,
        "Data.resize_size = 24",
        "Recipe.accumulation = 3",
    )
    # A part at a time, in place of all.
    assert mib(parts, "kept for the backward pass") == pytest.approx(
        kept / 3, rel=0.1
    )


def test_what_is_kept_by_hand():
    model = torch.nn.Linear(256, 256)
    inputs = torch.randn(1024, 256)  # 1 MiB.
    with memory.SavedForBackward(model) as saved:
        for _ in range(2):
            model(inputs).exp().sin().sum().backward()
    # The input, the exponential and what the sine is taken of, which is that;
    # not the weight.
    assert saved.peak_mib == pytest.approx(2)
    assert memory.size_mib([inputs, inputs[1:], inputs.T]) == 1.0


def test_a_run_that_is_there_stays_as_it_is(rehearse, tmp_path, images):
    jobs.configure(tmp_path)
    with jobs.interruption(3), pytest.raises(InterruptionError):
        jobs.train(tmp_path / "run", images)
    before = traces(tmp_path / "run")
    said, aside = rehearse(tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    assert said.splitlines()[-1] == (
        "would train 1.25 epochs = 5 steps, going on after 0 epochs and 3"
        f" steps, from {last}"
    )
    assert "warning" not in aside
    said, _ = rehearse(tmp_path / "run", resume=False)
    assert said.endswith(
        "would train 2 epochs = 8 steps, from the beginning, in"
        f" {tmp_path / 'run'}, whose checkpoints would be removed\n"
    )
    with pytest.raises(ValueError, match=r"resume: SAN\.widths must be"):
        rehearse(tmp_path / "run", "SAN.widths = (32, 64)")
    assert traces(tmp_path / "run") == before


def test_what_comes_next_is_what_was_said(rehearse, tmp_path, images):
    """A rehearsal changes nothing of the training after it."""
    jobs.configure(tmp_path)
    with jobs.interruption(3), pytest.raises(InterruptionError):
        jobs.train(tmp_path / "run", images)
    rehearse(tmp_path / "run")
    jobs.configure(tmp_path)
    resumed = jobs.train(tmp_path / "run", images)
    whole = jobs.train(tmp_path / "whole", images)
    jobs.assert_same_bits(jobs.weights(whole), jobs.weights(resumed))


def test_a_finished_run_would_train_nothing(rehearse, tmp_path, images):
    jobs.configure(tmp_path, "Recipe.epochs = 1")
    jobs.train(tmp_path / "run", images)
    said, aside = rehearse(tmp_path / "run", "Recipe.epochs = 1")
    assert said == (
        f"would train nothing: 1 epochs are done in {tmp_path / 'run'}\n"
    )
    assert "nothing left to train" in aside


def test_images_that_a_config_brings(rehearse, tmp_path):
    """Made elsewhere; those of the run itself are no other ones."""
    source = "Data.source = @write_pictures"
    said, _ = rehearse(tmp_path / "new", source, data_dir=None)
    assert "images: 27 to train" in said
    assert not (tmp_path / "new").exists()
    jobs.configure(tmp_path, source, "Recipe.epochs = 1")
    folder = jobs.train(tmp_path / "run", None)
    before = traces(folder.path)
    said, aside = rehearse(tmp_path / "run", source, data_dir=None)
    assert "going on after 1 epochs" in said
    assert aside.count("warning") == 1  # Of the number of epochs.
    assert traces(folder.path) == before


def test_mistakes_are_those_of_training(rehearse, tmp_path):
    with pytest.raises(DataError, match="batch_size must be at most 27"):
        rehearse(tmp_path / "run", "Recipe.batch_size = 28")
    with pytest.raises(FloatingPointError, match="loss must stay finite"):
        rehearse(tmp_path / "run", "Data.mean = (1e38, 1e38, 1e38)")
    assert not (tmp_path / "run").exists()


def test_in_two_processes_one_speaks(tmp_path, images):
    arguments = [
        f"--gin_file={jobs.write_settings(tmp_path)}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
        "--batch_size=7",
        "--dry_run",
    ]
    started = forked.start_together(2, tmp_path / "log", *arguments)
    (code, said), (other_code, other) = [one.finish() for one in started]
    assert code == other_code == 0, said + other
    assert "of 7 images in 2 processes\n" in said
    assert "multiply-accumulates: not known" not in said
    assert f"= 6 steps, from the beginning, in {tmp_path / 'run'}" in said
    assert "would train" not in other
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([0.5], ["      0.5 |*", *["          |*"] * 4, "        0 |*"]),
        (
            [6.0, 3.0, 1e-9],
            [
                *["        6 |*", "          |*", "          |*"],
                *["          |**", "          |**", "        0 |***"],
            ],
        ),
    ],
)
def test_a_picture_by_hand(values, lines):
    assert rehearsal.picture(values) == lines


def test_a_picture_of_many_epochs_is_no_wider_than_a_terminal():
    lines = rehearsal.picture([float(n) for n in range(1, 1001)])
    assert max(map(len, lines)) <= 79
    assert lines[-1].count("*") == 60 and lines[0].count("*") < 10


def test_a_damaged_checkpoint_stays_as_it_is(rehearse, tmp_path, images):
    folder = jobs.train_alone(tmp_path / "run", images, epochs=2)
    whole = bytearray(folder.last.read_bytes())
    whole[len(whole) // 2] ^= 1
    folder.last.write_bytes(whole)
    before = traces(folder.path)
    said, warned = rehearse(folder.path, "Recipe.epochs = 3")
    assert traces(folder.path) == before
    assert "last.pth" in warned and "training goes on from" in warned
    last = said.splitlines()[-1]
    assert last.startswith("would train ")
    assert last.endswith(f"from {folder.best}")


def test_the_rate_by_the_step_is_that_of_training(rehearse, tmp_path):
    by_step = ["Recipe.schedule_interval = 'step'", "Recipe.warmup_epochs = 1"]
    said, _ = rehearse(tmp_path / "run", *by_step, "Recipe.epochs = 2")
    (top,) = (
        line
        for line in said.splitlines()
        if " |" in line
        and "*" in line
        and line.split("|")[0].strip() not in ("", "0")
    )
    assert len(top.split("|")[1]) <= 8
    assert said.count("|") == 6
    # Four steps up and four down: it begins low.
    (lowest,) = (
        line for line in said.splitlines() if line.startswith("        0 |")
    )
    assert lowest.split("|")[1] == "*" * 8
    assert top.split("|")[1][0] == " "
