"""The paper's tables as they are printed and written."""

import dataclasses
import json
import pathlib
import re

import pytest
import torch
from absl import flags
from absl.testing import flagsaver

import san
from san.jobs import config
from tests.train import jobs
from tools.paper_tables import (
    figures,
    layout,
    left_open,
    main,
    robustness,
    runs,
)

SETTINGS = [
    "RowSize.num_blocks = (1, 1)",
    "RowSize.widths = (32, 32)",
    "Data.image_size = 12",
    "Data.resize_size = 14",
    "Data.num_threads = 1",
    "Recipe.batch_size = 9",
    "Recipe.epochs = 2",
    "Recipe.learning_rate = 0.02",
]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))

    def call(*arguments):
        with flagsaver.flagsaver():
            code = main.main(flags.FLAGS(["paper_tables", *arguments]))
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of a row, an unfinished one and one of no row."""
    folder = tmp_path_factory.mktemp("runs")
    images = jobs.write_images(tmp_path_factory.mktemp("data") / "pictures")
    for name, row, more in (
        ("done", "table4/pair/subtraction", []),
        ("short", "table4/pair/subtraction", []),
        ("other", "table4/pair/subtraction", ["create_model.name = @SAN"]),
    ):
        if name == "other":
            jobs.configure(folder)
        else:
            config.parse([f"{row}.gin"], [*SETTINGS, *more])
        jobs.train(folder / name, images)
    last = folder / "short" / "checkpoints" / "last.pth"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["recipe"]["epochs"] = 3
    torch.save(checkpoint, last)
    yield folder
    config.parse([])


def test_all_tables_and_what_is_left_open(run, tmp_path):
    file = tmp_path / "tables.json"
    code, stdout, stderr = run(f"--json={file}")
    assert code == 0, stderr
    for title in (
        *(f"Table {number}: " for number in (1, 3, 4, 5, 6, 7, 8, 9, 10)),
        "Section 5.3: ",
        left_open.HEADING,
    ):
        assert f"\n{title}" in f"\n{stdout}"
    written = json.loads(file.read_text())
    assert [row["row"] for row in written["rows"]] == [
        row.row for row in san.paper_rows()
    ]
    for row in written["rows"]:
        assert row["macs"] <= row["honest_macs"]
        for count, unit, printed in (
            ("parameters", 10**6, "printed_parameters"),
            ("macs", 10**9, "printed_macs"),
        ):
            assert float(figures.rounded(row[count], unit)) == row[printed]
        assert row["measured"] is None
    rows = {row["row"]: row for row in written["rows"]}
    assert rows["table6/pair/phi=psi"]["macs"] == 2_045_828_494
    assert rows["table6/pair/phi=psi"]["printed_macs"] == 2.1
    clique = rows["table4/patch/clique"]
    assert clique["published_top1"] == 79.1
    assert clique["honest_macs"] == 2_299_208_131
    assert written["left_open"] == list(left_open.POINTS)


def test_architectures_and_published_robustness(run):
    code, stdout, stderr = run("--table=1,9,10")
    assert code == 0, stderr
    for part in (
        "28 x 28 x 512   [7 x 7 sa, 128; linear, 512] x 2   ",
        "112 x 112 x 64     [3 x 3 sa, 16; linear, 64] x 2     ",
        "1 x 1 x 1000",
        "54.7 (78.5)  51.7 (74.5)",
        "49.0 / 26.6   98.2 / 1.0",
        "not measured here",
    ):
        assert part in stdout
    assert "table4/" not in stdout


def test_markdown(run):
    code, stdout, stderr = run("--table=5.3", "--format=markdown")
    assert code == 0, stderr
    lines = stdout.splitlines()
    assert lines[0] == "## Section 5.3: scalar attention, in SAN10"
    assert lines[2].startswith("| row | parameters | M | printed M | MACs |")
    assert lines[3].startswith("| --- | ---: |")
    assert (
        "| table5.3/sasa | 13 861 928 | 13.9 | 13.9 | 2 248 703 488 |"
        in (lines[4])
    )
    assert f"## {left_open.HEADING}" in lines


def test_runs_beside_the_published_figures(run, trained, tmp_path):
    code, stdout, stderr = run(
        "--table=4,5", f"--runs={trained}", "--json=out.json"
    )
    assert code == 0, stderr
    last = torch.load(
        trained / "done" / "checkpoints" / "last.pth", weights_only=True
    )
    latest = last["state"]["latest"]
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    rows = {row["row"]: row for row in rows}
    measured = rows["table4/pair/subtraction"]["measured"]
    assert measured == {
        "top1": pytest.approx(latest["top1"]),
        "top5": pytest.approx(latest["top5"]),
        "num_images": 15,
        "data": "pictures",
        "epochs": 2,
        "size": "RowSize: num_blocks = (1, 1), widths = (32, 32)",
        "runs": 1,
    }
    # The same network has the same figures.
    assert rows["table5/pair/L-R-L"]["measured"] == measured
    assert rows["table4/pair/dot"]["measured"] is None
    # What was bound for the run is not of what is counted.
    assert rows["table4/pair/subtraction"]["parameters"] == 10_531_848
    assert "pictures, 15 images, 2 epochs, RowSize: num_blocks" in stdout
    assert f"left out: {trained}/short: 2 of 3 epochs are done" in stderr
    assert f"left out: {trained}/other: no row of the paper is" in stderr


RUN = runs.Run(
    folder=pathlib.Path("runs/a"),
    row="table3/pair/san10",
    data="digits",
    fold="digits_fold0",
    seed=0,
    size="",
    epochs=20,
    settings=frozenset(),
    top1=90.0,
    top5=99.0,
    num_images=100,
)
ROWS = {row.row: row for row in san.paper_rows()}


def test_folds_and_seeds_are_one_figure():
    found = [
        RUN,
        dataclasses.replace(RUN, seed=1, top1=92.0),
        dataclasses.replace(RUN, fold="digits_fold1", num_images=50, top1=97.0),
    ]
    measured = runs.measured(ROWS["table3/pair/san10"], found)
    assert measured.top1 == pytest.approx((90 * 100 + 92 * 100 + 97 * 50) / 250)
    assert (measured.num_images, measured.runs) == (150, 3)
    assert measured.as_text() == "digits, 150 images, 20 epochs, 3 runs"


def test_a_rows_own_runs_come_before_those_of_its_network():
    other = dataclasses.replace(
        RUN, row="table4/pair/subtraction", size="RowSize: widths = (32, 32)"
    )
    runs_of = {
        name: runs.measured(ROWS[name], [RUN, other])
        for name in ("table3/pair/san10", "table4/pair/subtraction")
    }
    assert runs_of["table3/pair/san10"].size == ""
    assert runs_of["table4/pair/subtraction"].size == other.size
    # A smaller network is not that of the main table.
    assert runs.measured(ROWS["table3/pair/san10"], [other]) is None
    assert runs.measured(ROWS["table6/pair/distinct"], [other]) is not None
    assert runs.measured(ROWS["table3/pair/san15"], [RUN]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"fold": "/flowers/images_fold0"},
        {"epochs": 30},
        {"size": "RowSize: widths = (32,)"},
        {"fold": "digits"},  # Some of the folds' images again.
    ],
)
def test_runs_that_cannot_be_compared(change):
    other = dataclasses.replace(RUN, folder=pathlib.Path("runs/b"), **change)
    with pytest.raises(
        ValueError,
        match=r"^paper_tables: --runs must have runs of table3/pair/san10 on"
        r" the same data.* got runs/a \(digits in folds, 20 epochs\) and runs/b ",
    ):
        runs.measured(ROWS["table3/pair/san10"], [RUN, other])


def test_runs_with_other_settings_and_the_same_run_again():
    other = dataclasses.replace(
        RUN,
        folder=pathlib.Path("runs/b"),
        seed=1,
        settings=frozenset([("Recipe.batch_size", "8")]),
    )
    with pytest.raises(
        ValueError, match=r"runs/b with other Recipe\.batch_size"
    ):
        runs.measured(ROWS["table3/pair/san10"], [RUN, other])
    again = dataclasses.replace(RUN, folder=pathlib.Path("runs/copy"))
    with pytest.raises(ValueError, match=r"once, .* in runs/a and runs/c"):
        runs.measured(ROWS["table3/pair/san10"], [RUN, again])


def test_robustness_of_ours_stands_below_the_published(tmp_path, capsys):
    accuracy = {"top1": 50.0, "top5": 75.0, "loss": 1.0}
    subject = {
        "label": "run",
        "network": "san10_pair",
        "num_images": 360,
        "num_classes": 10,
    }
    turned = {
        **subject,
        "orientations": {
            name: accuracy
            for name in ("none", "90 clockwise", "180", "270", "upside-down")
        },
    }
    weak = {"epsilon": 8.0, "step": 4.0, "iterations": 2, "starts": 1}
    attacked = {
        **subject,
        "network": None,
        "outcomes": [
            {"attack": None, "success": 1.0, "top1": 97.0},
            {
                "attack": {**weak, "loss": "cross-entropy"},
                "success": 20.0,
                "top1": 60.0,
            },
            {
                "attack": {**weak, "step": 2.0, "iterations": 4}
                | {"loss": "margin"},
                "success": 99.0,
                "top1": 1.0,
            },
        ],
    }
    path = tmp_path / "run" / "robustness-all.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"networks": [turned, attacked]}))
    networks = robustness.read_reports(tmp_path)
    table = robustness.rotations(networks)
    assert table.rows[-1] == ["measured: san10_pair", *["50.00 (75.00)"] * 5]
    assert len(table.rows) == 10
    assert table.notes[-1] == (
        f"measured: san10_pair: 360 images of 10 classes, {path}"
    )
    table = robustness.attacks(networks)
    assert table.rows[-1] == ["measured: run", "20.00 / 60.00", ""]
    for text in (
        "",
        "[]",
        '{"networks": [{"orientations": {}}]}',
        '{"networks": [{"network": "a", "orientations": {"none": {}}}]}',
        '{"networks": [{"outcomes": null}]}',
    ):
        path.write_text(text)
        assert robustness.read_reports(tmp_path) == []
        said = capsys.readouterr().err
        assert said.startswith(f"left out: {path}: not of //eval:robustness (")


def test_robustness_as_it_is_written(trained, tmp_path):
    for mode in ("rotations", "attack"):
        code, _, stderr = jobs.run(
            "eval.robustness",
            mode,
            f"--workdir={trained / 'done'}",
            f"--json={tmp_path / f'robustness_{mode}.json'}",
        )
        assert code == 0, stderr
    networks = robustness.read_reports(tmp_path)
    for table in (robustness.rotations(networks), robustness.attacks(networks)):
        name, *figures = table.rows[-1]
        assert name == "measured: table4/pair/subtraction"
        assert all(figures)
        assert "15 images of 3 classes" in table.notes[-1]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--table=2", "--table must be of 1, 3, 4, 5, 5.3, 6, .*, got 2"),
        ("--runs=none", "--runs must be an existing folder, got /.*/none"),
        ("--json=no/such.json", "--json must be a file in an existing folder"),
        ("table4", "everything must be a flag"),
    ],
)
def test_mistakes_are_one_clear_message(run, argument, message):
    code, stdout, stderr = run(argument)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert re.search(message, stderr)


def test_started_as_a_user_does():
    code, stdout, stderr = jobs.run("tools.paper_tables.main", "--table=9")
    assert code == 0, stderr
    assert stdout.startswith("Table 9: ")


def test_layout_of_text():
    table = layout.Table("T", ("name", "x"), [("a", "10"), ("bcdef", "2")])
    assert table.as_text() == "T\nname    x\n---------\na      10\nbcdef   2"
