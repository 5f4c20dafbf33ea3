"""The calls that a GPU machine gets, with --device=cpu: a real build and all.

It compiles every C++ source once more, by a g++ that does not optimise, to be
done in time.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

_COMMAND = [sys.executable, str(pathlib.Path("tools/gpu_check").absolute())]
_TESTS = "tests/kernels/errors_test.py"
_WORKS = "forward, layer 4"


def start(build_dir, *arguments):
    """The command in a folder of its own, as a process."""
    folder = build_dir.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*_COMMAND, *arguments, "--device=cpu", f"--build_dir={build_dir}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {
            "PATH": os.pathsep.join(
                [str(compiler(folder)), os.environ["PATH"]]
            ),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )


def compiler(folder):
    """A folder with a g++ that is told last not to optimise."""
    script = folder / "bin/g++"
    if not script.exists():
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shutil.which("g++")} "$@" -O0\n')
        script.chmod(0o755)
    return script.parent


def call(build_dir, *arguments):
    """The exit code of the command, and what it printed."""
    process = start(build_dir, *arguments)
    output, _ = process.communicate()
    return process.returncode, output


@pytest.fixture(scope="module")
def build_dir(tmp_path_factory):
    """Where the first call has built."""
    folder = tmp_path_factory.mktemp("check") / "build"
    code, output = call(folder, "build", f"--output={folder}/first")
    assert code == 0, output
    assert re.search(r"passed +\d+ s  build: \d+ files", output)
    assert (folder / "first/summary_build.txt").exists()
    return folder


def test_a_second_call_tests_and_measures_what_the_first_built(build_dir):
    code, output = call(
        build_dir,
        *("test", "measure", "--quick", "--seconds=280"),
        *(f"--tests={_TESTS}", "--sections=ops", f"--only={_WORKS}"),
    )
    assert code == 0, output
    assert "build: as before: no source or compiler changed" in output
    assert re.search(rf"passed +\d+ s  {_TESTS}: \d+ passed", output)
    assert "aggregation forward, layer 4" in output
    assert output.endswith("every step passed\n")
    results = {path.name for path in (build_dir / "results").iterdir()}
    assert {
        "summary_test_measure.txt",
        "tests_kernels_errors_test.jsonl",
        "tests_kernels_errors_test.log",
        "measure_ops.json",
        "measure_ops.txt",
    } <= results


def test_what_fails_is_in_the_table_and_in_the_exit_code(build_dir):
    code, output = call(
        build_dir, "measure", "--only=no such work", "--sections=core,ops"
    )
    assert code == 1
    assert "--only: no work matches 'no such work'" in output
    assert "FAILED" in output
    assert output.endswith("2 of 4 steps failed or were not done\n")


def test_the_time_of_a_call_is_kept(build_dir):
    start = time.monotonic()
    code, output = call(build_dir, "test", "--seconds=12")
    assert code == 1
    assert time.monotonic() - start < 40
    assert "12 s are over" in output
    assert "NOT DONE" in output


def running_in(folder):
    """Processes whose command lines name the folder."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # Ended meanwhile.
        if any(str(folder).encode() in word for word in words):
            found.append(words)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_table(tmp_path, number):
    build_dir = tmp_path / "build"
    process = start(build_dir, "build", "test")
    for line in process.stdout:
        if "files to compile" in line:
            break
    deadline = time.monotonic() + 30
    while len(running_in(build_dir)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by signal {int(number)}" in output
    assert "NOT DONE         build\n" in output
    table = (build_dir / "results/summary_build_test.txt").read_text()
    assert output.endswith(table)
    deadline = time.monotonic() + 20
    while running_in(build_dir):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_wrong_flags_are_a_line(tmp_path):
    code, output = call(tmp_path / "build", "tset")
    assert code == 2
    assert output.startswith("gpu_check: step must be one of build, test,")
    assert output.count("\n") == 1
