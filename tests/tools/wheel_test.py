"""Installs the wheel in an empty environment and runs an operator there."""

import os
import pathlib
import subprocess
import sys
import venv

_PROGRAM = """
import san, torch
weight = torch.full((1, 1, 9, 25), 1 / 9)
out = san.ops.aggregation(torch.ones(1, 2, 5, 5), weight, 3, padding=1)
torch.testing.assert_close(out, torch.ones(1, 2, 5, 5))
assert "san10_pair" in san.list_models()
print(san.__file__)
"""


def test_wheel_installs_and_runs_an_operator(tmp_path):
    (wheel,) = pathlib.Path("tools").glob("*.whl")
    empty = tmp_path / "empty"
    venv.create(empty, with_pip=True)
    python = empty / "bin" / "python"
    env = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1"}
    install = ["-m", "pip", "install", "--quiet", "--no-deps", wheel.resolve()]
    subprocess.run([python, *install], check=True, env=env)
    # The wheel's dependencies, but not this project's folders.
    site = [p for p in sys.path if p.endswith("/python/site")]
    assert site
    ran = subprocess.run(
        [python, "-c", _PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env | {"PYTHONPATH": os.pathsep.join(site)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(empty))
