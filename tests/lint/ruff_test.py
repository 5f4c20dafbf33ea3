import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "command", [["check"], ["format", "--check", "--diff"]], ids=" ".join
)
def test_ruff_finds_nothing(command):
    found = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_ruff_reads_the_project():
    listed = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "."],
        capture_output=True,
        text=True,
    ).stdout
    assert "san/cost.py" in listed
    assert "tests/lint/ruff_test.py" in listed
