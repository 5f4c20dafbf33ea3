"""The wheel beside the oldest torch that it allows and the newest there is.

    ./bazelw test //tests/tools:wheel_beside_torch_test --test_output=all

Asks the package index, some GB for each torch; so no part of `//...`. pip's
settings reach it by their files, or by `--test_env=PIP_INDEX_URL`.
"""

import pathlib
import re
import shutil
import subprocess
import venv
import zipfile

import pytest

_PROGRAM = pathlib.Path("tests/tools/wheel_program.py")


def _wheel():
    (wheel,) = pathlib.Path("tools/wheel").glob("*.whl")
    return wheel.resolve()


def _oldest_torch():
    """The version in the wheel's `Requires-Dist: torch>=VERSION`."""
    with zipfile.ZipFile(_wheel()) as packed:
        (name,) = (n for n in packed.namelist() if n.endswith("/METADATA"))
        metadata = packed.read(name).decode()
    return re.search(r"^Requires-Dist: torch>=(\S+)$", metadata, re.M)[1]


@pytest.fixture
def environment(tmp_path):
    """An empty virtual environment, gone after the test: it takes 6 GB."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_installed_beside_torch(environment, tmp_path, which):
    torch = f"torch=={_oldest_torch()}.*" if which == "oldest" else "torch"
    # Isolated: Bazel's PYTHONPATH holds the project and its packages.
    python = [environment / "bin" / "python", "-I"]
    install = ["-m", "pip", "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*python, *install, _wheel(), torch], check=True)
    program = shutil.copy(_PROGRAM, tmp_path)
    ran = subprocess.run(
        [*python, program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    versions, file = ran.stdout.splitlines()
    assert file.startswith(str(environment))
    print(f"\n{which} torch: {versions}, {_wheel().name}")
