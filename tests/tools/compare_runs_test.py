"""Runs are compared, whatever state their work folders are in."""

import io
import shutil

import pytest
import torch
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from san.jobs import config
from tests.train import jobs
from tools.compare_runs import main


@pytest.fixture
def compare(capsys, monkeypatch, tmp_path):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))

    def call(*arguments):
        capsys.readouterr()
        with flagsaver.flagsaver():
            given = flags.FLAGS(["compare_runs", *map(str, arguments)])
            code = main.main(given)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs; they are not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    images = jobs.write_images(tmp_path_factory.mktemp("data") / "pictures")
    for name, *params in (
        ("one", "Recipe.momentum = 0.8"),
        ("other", "Recipe.epochs = 3", "SAN.kernel_sizes = (3, 5)"),
    ):
        jobs.configure(folder, "Recipe.log_every_steps = 1", *params)
        jobs.train(folder / name, images)
    yield folder
    config.parse([])


@pytest.fixture
def runs(trained, tmp_path):
    """Copies of them."""
    return shutil.copytree(trained, tmp_path / "runs")


def rows(text):
    """The cells of each line, by the first one."""
    lines = [line.split("  ") for line in text.splitlines() if line]
    return {
        cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()]
        for cells in lines
    }


def test_values_and_figures_side_by_side(compare, runs):
    code, said, aside = compare("runs/one", "runs/other")
    assert code == 0, aside
    settings, figures = said.split("\n\n")
    assert rows(settings) == {
        "settings that differ": ["one", "other"],
        "Recipe.epochs": ["2", "3"],
        "Recipe.momentum": ["0.8", "0.9"],
        "SAN.kernel_sizes": ["(3, 3)", "(3, 5)"],
    }
    (one, other) = (rows(figures)[name] for name in ("one", "other"))
    for found, name, epochs in ((one, "one", 2), (other, "other", 3)):
        state = torch.load(runs / name / "checkpoints/last.pth")["state"]
        assert found[:6] == [
            f"{epochs} of {epochs}",
            f"{state['best']['top1']:.2f}",
            f"{state['best']['epoch']}",
            f"{state['latest']['top1']:.2f}",
            f"{state['latest']['top5']:.2f}",
            f"{state['latest']['loss']:.4f}",
        ]
    assert not aside


def test_the_same_settings(compare, runs):
    shutil.copytree(runs / "one", runs / "again")
    code, said, _ = compare("runs/one", "runs/again")
    assert code == 0 and said.startswith("settings: the same\n")


def test_a_run_that_is_still_training(compare, runs):
    """No end, no checkpoint yet, and a line that is being written."""
    for name in ("operative.gin", "checkpoints/last.pth"):
        (runs / "one" / name).unlink()
    metrics = runs / "one" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:3]) + lines[3][:40])
    code, said, aside = compare(
        runs / "one", "runs/other", "--output=curves.svg"
    )
    assert code == 0, aside
    settings, figures = map(rows, said.split("\n\n"))
    # No default that one of them has not written down.
    assert settings["SAN.kernel_sizes"] == ["(3, 3)", "(3, 5)"]
    assert "Data.flip" not in settings
    assert figures["one"][:3] == ["0.75", "-", "-"]
    assert (runs.parent / "curves.svg").stat().st_size > 10_000


def test_a_run_without_metrics(compare, runs):
    """One of an older version, and one before its first log."""
    (runs / "one" / "metrics.jsonl").unlink()
    (runs / "new").mkdir()
    shutil.copy(runs / "one" / "config.gin", runs / "new")
    code, said, aside = compare("runs/one", "runs/new", "runs/other")
    assert code == 0, aside
    assert "one: no metrics.jsonl; these are its checkpoint's\n" in said
    assert said.endswith("new: no metrics.jsonl yet\n")
    found = rows(said.split("\n\n")[1])
    assert found["one"][0] == "2 of 2" and found["new"][0] == "0"
    code, _, aside = compare("runs/one", "runs/new", "--output=curves.png")
    assert code == 2
    assert "--output must be left out until a run has a" in aside


def test_a_picture(compare, runs):
    with (runs / "one" / "metrics.jsonl").open("a") as file:
        for line in ("nonsense", '{"kind": "train", "loss": null}', "{}"):
            file.write(f"{line}\n")
    code, _, aside = compare("runs/one", "runs/other", "--output=c.png")
    assert code == 0, aside
    assert aside.endswith(f"written: {runs.parent / 'c.png'}\n")
    content = (runs.parent / "c.png").read_bytes()
    assert Image.open(io.BytesIO(content)).size == (880, 770)


def test_names_that_are_the_same_are_paths(compare, runs):
    shutil.copytree(runs / "one", runs / "more" / "one")
    code, said, _ = compare("runs/one", "runs/more/one")
    assert code == 0
    assert f"...{str(runs / 'one')[-25:]}  " in said.replace("\n", "  ")


@pytest.mark.parametrize("damage", ["checkpoints/last.pth", "config.gin"])
def test_what_cannot_be_read_is_said_and_left_out(compare, runs, damage):
    (runs / "one" / damage).write_text("Recipe.epochs = = 3")
    code, said, aside = compare("runs/one", "runs/other")
    assert code == 0, aside
    assert aside.startswith("warning: ") and damage in aside
    assert "\none " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "two or more different work folders, got none"),
        (["runs/one"], "two or more different work folders, got runs/one"),
        (["runs/one", "runs/one"], "different work folders"),
        (["runs/one", "runs/none"], "runs/none, which is no folder"),
        (["runs/one", "runs"], "neither config.gin nor metrics.jsonl"),
        (["runs/one", "runs/other", "--output=x.gif"], "end in .png, .svg"),
        (["runs/one", "runs/other", "--output=no/x.png"], "existing folder"),
    ],
)
def test_mistakes(compare, runs, arguments, message):
    code, said, aside = compare(*arguments)
    assert code == 2
    assert aside.startswith("error: compare_runs: ") and message in aside
    assert not said
