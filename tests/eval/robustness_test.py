"""The command as a user starts it, on networks that it has trained."""

import json
import os
import subprocess
import sys

import pytest

from tests.train import jobs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work folder with its checkpoint and its configuration."""
    folder = tmp_path_factory.mktemp("robustness")
    images = jobs.write_images(folder / "images", num_classes=3)
    jobs.configure(folder, "Recipe.learning_rate = 0.05")
    return jobs.train(folder / "run", images)


def run_job(*arguments, folder):
    return jobs.run(
        "eval.robustness", *arguments, BUILD_WORKING_DIRECTORY=str(folder)
    )


def test_help_is_worth_reading():
    code, stdout, _ = jobs.run("eval.robustness", "--help")
    assert code in (0, 1)  # absl's own choice.
    for part in (
        "rotations --workdir=runs/san10_pair-digits",
        "attack --gin_file=san10_pair.gin",
        "--angles",
        "--fill",
        "--strong",
        "--checks",
        "--num_images",
        "--json",
        "--seed",
        "marked as\npublished",
        "Exit codes",
    ):
        assert part in stdout


MISTAKES = [
    ([], "the command must be one of rotations, attack, got none"),
    (["tables"], "must be one of rotations, attack, got tables"),
    (["attack", "now"], "must be one of rotations, attack, got attack now"),
    (["attack"], "exactly one of --workdir and --checkpoint"),
    (
        ["attack", "--workdir=a", "--checkpoint=b"],
        "must be given, got both",
    ),
    (
        ["rotations", "--strong"],
        "--strong must come with attack, got rotations",
    ),
    (
        ["attack", "--fill=black"],
        "--fill must come with rotations, got attack",
    ),
    (["rotations", "--workdir=runs/none"], "runs/none without best.pth"),
    (
        ["rotations", "--checkpoint=a", "--angles=90"],
        "--angles must be START:STOP:STEP",
    ),
    (
        ["rotations", "--checkpoint=a", "--plot=b.png"],
        "--plot must come with --angles",
    ),
    (
        ["rotations", "--checkpoint=a", "--angles=0:9:1", "--plot=b.jpg"],
        "--plot must end in .png, .svg, .pdf",
    ),
    (
        ["attack", "--checkpoint=a", "--json=none/b.json"],
        "--json must be a file in an existing folder",
    ),
    (
        ["attack", "--checkpoint=a", "--gin_file=san10_pair.gin"],
        "must be a checkpoint file",
    ),
]

# The command once for each mistake, in one process.
# Each in a process of its own, which need not import everything again.
DRIVER = """
import json, os, sys
from absl import flags
from eval import robustness
for arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        robustness.main(flags.FLAGS(["robustness", *arguments]))
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def test_mistakes_are_one_clear_message(tmp_path):
    arguments = json.dumps([arguments for arguments, _ in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, arguments],
        env={**os.environ, "BUILD_WORKING_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) <= {"1", "2"}
    lines = done.stderr.splitlines()
    for line, (_, message) in zip(lines, MISTAKES, strict=True):
        assert line.startswith("error: ")
        assert message in line


def test_a_mistake_as_a_user_sees_it(tmp_path):
    code, stdout, stderr = run_job("attack", folder=tmp_path)
    assert code == 2 and not stdout
    assert stderr.startswith("error: ") and len(stderr.splitlines()) == 1


def test_rotations_of_two_networks(tmp_path, run):
    code, stdout, stderr = run_job(
        "rotations",
        f"--workdir={run.path}",
        f"--workdir={run.path}",
        "--which=last",
        "--angles=0:90:45",
        "--plot=angles.png",
        "--json=rotations.json",
        folder=tmp_path,
    )
    assert code == 0, stderr
    assert stdout.count("upside-down") == 2
    assert "last.pth (epoch 2): 15 images of 3 classes" in stdout
    assert (tmp_path / "angles.png").stat().st_size > 1000
    one, other = json.loads((tmp_path / "rotations.json").read_text())[
        "networks"
    ]
    assert one == other
    assert one["label"] == "run"
    assert [entry["degrees"] for entry in one["angles"]] == [0, 45, 90]


def attack(run, name, *arguments, folder):
    code, stdout, stderr = run_job(
        "attack",
        f"--checkpoint={run.last}",
        f"--gin_file={run.config}",
        f"--json={name}",
        *arguments,
        folder=folder,
    )
    assert code == 0, stderr
    return stdout, (folder / name).read_bytes()


def test_attacks_repeat_to_the_bit(tmp_path, run):
    options = ("--batch_size=4", "--seed=5", "--num_images=6")
    text, first = attack(run, "a.json", *options, folder=tmp_path)
    again, second = attack(run, "b.json", *options, folder=tmp_path)
    assert (text, first) == (again, second)
    found = json.loads(first)
    assert found["seed"] == 5 and "Targeted L-infinity" in found["protocol"]
    (network,) = found["networks"]
    assert network["label"] == "last.pth" and network["num_images"] == 6
    assert network["chance"] == pytest.approx(100 / 3)
    none, *outcomes = network["outcomes"]
    assert none["attack"] is None
    assert [outcome["attack"]["iterations"] for outcome in outcomes[:2]] == [
        2,
        4,
    ]
    for part in (
        "Targeted L-infinity PGD",
        "Seed 5.",
        "chance: a guess among 3 classes is the target in 33.33%",
    ):
        assert part in text


def test_checks_are_printed(tmp_path, run):
    stdout, _ = attack(
        run, "a.json", "--num_images=2", "--checks", folder=tmp_path
    )
    assert "more steps are never weaker: " in stdout
    assert "a ball of 128 leaves nothing right: " in stdout
    # The settings of the paper and of the checks, one of them in both.
    assert stdout.count("  cross-entropy  ") == 10


def test_processes_share_the_images(tmp_path, run):
    _, alone = attack(run, "one.json", folder=tmp_path)
    arguments = (
        "attack",
        f"--checkpoint={run.last}",
        f"--gin_file={run.config}",
        f"--json={tmp_path / 'two.json'}",
    )
    first, second = jobs.run_processes(2, "eval.robustness", *arguments)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert first[1] and not second[1]
    together = json.loads((tmp_path / "two.json").read_text())
    one, two = json.loads(alone)["networks"][0], together["networks"][0]
    assert one["outcomes"][0] == two["outcomes"][0]
    assert one["num_images"] == two["num_images"] == 15
    for outcome in two["outcomes"]:
        right = outcome["top1"] * 15 / 100
        assert right == pytest.approx(round(right))
