import os
import subprocess
import sys


def test_mypy_finds_nothing(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path, "san"],
        capture_output=True,
        text=True,
        env=os.environ | {"MYPYPATH": os.getcwd()},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "no issues found" in found.stdout
