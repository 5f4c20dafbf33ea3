import os
import subprocess
import sys

import pytest


def run(*arguments, **environment):
    """Runs Python; libgomp prints what it reads when torch loads it."""
    kept = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        env=kept | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
    )


@pytest.mark.parametrize("command", ["train.main", "eval.imagenet"])
@pytest.mark.parametrize("users", [{}, {"GOMP_SPINCOUNT": "77"}])
def test_a_command_sets_it_before_torch_reads_it(command, users):
    found = run(f"import {command}", **users)
    assert found.returncode == 0, found.stderr
    expected = users.get("GOMP_SPINCOUNT", "1000")
    assert f"GOMP_SPINCOUNT = '{expected}'" in found.stderr


def test_too_late_is_our_own_fault():
    found = run("import torch, train.main")
    assert found.returncode == 1
    assert "AssertionError: before_torch: torch must not be" in found.stderr
