"""Installs the wheel in an empty environment and runs an operator there."""

import os
import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

import san
from tools import wheel as wheel_writer

_PROGRAM = """
import importlib.metadata
import san, torch
weight = torch.full((1, 1, 9, 25), 1 / 9)
out = san.ops.aggregation(torch.ones(1, 2, 5, 5), weight, 3, padding=1)
torch.testing.assert_close(out, torch.ones(1, 2, 5, 5))
assert "san10_pair" in san.list_models()
assert san.__version__ == importlib.metadata.version("san")
print(san.__file__)
"""


def test_wheel_installs_and_runs_an_operator(tmp_path):
    (wheel,) = pathlib.Path("tools/wheel").glob("*.whl")
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


def test_the_wheel_says_for_whom_it_is():
    (wheel,) = pathlib.Path("tools/wheel").glob("*.whl")
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version) == ("san", san.__version__)
    assert python == abi == f"cp3{sys.version_info.minor}"
    assert platform.startswith("manylinux_2_")
    with zipfile.ZipFile(wheel) as packed:
        info = f"san-{version}.dist-info"
        metadata = packed.read(f"{info}/METADATA").decode()
        tag = packed.read(f"{info}/WHEEL").decode()
    assert f"Tag: {python}-{abi}-{platform}\n" in tag
    assert "Requires-Python: >=3.11\n" in metadata
    assert "Requires-Dist: torch>=2.11\n" in metadata


def test_the_oldest_platform_of_symbols():
    oldest = wheel_writer.oldest_glibc
    assert oldest(["GLIBC_2.2.5", "GLIBCXX_3.4"]) == (2, 28)
    assert oldest(["GLIBC_2.34", "GLIBCXX_3.4.22"]) == (2, 34)
    assert oldest(["GLIBC_2.34", "GLIBCXX_3.4.30"]) == (2, 35)
    assert oldest(["GLIBC_2.38", "GLIBCXX_3.4.29"]) == (2, 38)
    assert oldest(["GLIBC_2.34", "CXXABI_1.3.15"]) == (2, 39)
    with pytest.raises(ValueError, match="that _PLATFORMS knows"):
        oldest(["GLIBCXX_3.5"])
