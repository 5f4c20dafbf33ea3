"""What the build takes of a machine: its Python, torch for its GPU."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

_HERE = pathlib.Path("third_party/python")
_SUPPORTED = (_HERE / "supported.txt").read_text().split()


def _find_python(*arguments, path="/usr/bin:/bin", **env):
    return subprocess.run(
        [_HERE / "find_python.sh", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": path} | env,
    )


def _choose_torch(root, **env):
    chosen = subprocess.run(
        [_HERE / "choose_torch.sh", root],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]} | env,
    )
    kind, why = chosen.stdout.splitlines()
    return kind, why


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_supported_pythons_are_newest_first():
    versions = [tuple(map(int, v.split("."))) for v in _SUPPORTED]
    assert versions == sorted(versions, reverse=True)
    assert sys.version_info[:2] in versions


def test_the_interpreter_asked_for():
    found = _find_python(SAN_PYTHON=os.path.realpath(sys.executable))
    assert found.returncode == 0, found.stderr
    assert os.path.realpath(found.stdout.strip()) == os.path.realpath(
        sys.executable
    )


@pytest.mark.parametrize("name", ["", "missing"])
def test_an_interpreter_that_will_not_do(tmp_path, name):
    other = tmp_path / "python3.10"
    _write(other, "#!/bin/sh\necho is cpython 3.10\n")
    found = _find_python(SAN_PYTHON=str(tmp_path / (name or "python3.10")))
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("SAN_PYTHON must be CPython 3.14/")


def test_shims_are_no_interpreters(tmp_path):
    for version in _SUPPORTED:
        _write(tmp_path / f"python{version}", "#!/bin/sh\necho shim ran >&2\n")
    found = _find_python(path=f"{tmp_path}:/usr/bin:/bin")
    assert not found.stdout.startswith(str(tmp_path))
    assert "shim" not in found.stderr


def test_torch_follows_the_driver(tmp_path):
    assert _choose_torch(tmp_path)[0] == "cpu"
    driver = tmp_path / "proc/driver/nvidia/version"
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Rel\n"
    _write(driver, line.format("580.95.05") + "GCC version: gcc 12.3.0\n")
    kind, why = _choose_torch(tmp_path)
    assert kind == "cuda"
    assert why.startswith("NVIDIA driver 580.95.05;")
    assert _choose_torch(tmp_path, SAN_TORCH="cpu")[0] == "cpu"
    _write(driver, line.format("535.104.05"))
    kind, why = _choose_torch(tmp_path)
    assert kind == "cpu"
    assert "535.104.05 is older than 580" in why
    assert _choose_torch(tmp_path, SAN_TORCH="cuda")[0] == "cuda"


def test_torch_follows_the_library_of_a_driver(tmp_path):
    _write(tmp_path / "usr/lib/wsl/lib/libcuda.so.1", "")
    assert _choose_torch(tmp_path)[0] == "cuda"


# What ./bazelw itself calls.
_TOOLS = "bash dirname grep mktemp paste python3 rm sed sort tail tr".split()


def _bazelw_without_bazel(folder, **programs):
    """What an unprivileged user sees where nothing else but this is found."""
    for name in _TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    nothing = {"id": "echo 1000", "g++": "true"}
    for name, script in (nothing | programs).items():
        _write(folder / name, f"#!/bin/sh\n{script}\n")
    ran = subprocess.run(
        ["./bazelw", "test", "//..."],
        capture_output=True,
        text=True,
        env={"PATH": str(folder), "SAN_PYTHON": sys.executable},
    )
    assert ran.returncode == 1
    return ran.stderr.splitlines()[-1]


def test_bazelw_where_there_is_no_apt(tmp_path):
    line = _bazelw_without_bazel(tmp_path)
    assert line.startswith("bazelw: please install: bazel-bootstrap (Debian")


@pytest.mark.parametrize("sudo", [None, "echo sudo: a password >&2; exit 1"])
def test_bazelw_where_only_root_may_install(tmp_path, sudo):
    programs = {"apt-get": "exit 1"} | ({"sudo": sudo} if sudo else {})
    line = _bazelw_without_bazel(tmp_path, **programs)
    assert line.startswith("bazelw: root must install what is missing")
    assert line.endswith(
        "apt-get install --no-install-recommends bazel-bootstrap"
    )


def test_bazelw_where_apt_cannot_install(tmp_path):
    programs = {"apt-get": "exit 1", "id": "echo 0", "env": "exit 1"}
    line = _bazelw_without_bazel(tmp_path, **programs)
    assert line.startswith("bazelw: apt-get could not install bazel-bootstrap")
