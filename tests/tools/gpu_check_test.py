"""tools/gpu_check in its parts, with real processes and without a GPU."""

import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from tools import cuda_times
from tools.gpu_check import (
    building,
    carrying,
    measuring,
    processes,
    sanitizing,
    testing,
    toolchain,
)
from tools.gpu_check.command_line import options_of
from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, LEFT_OUT, PASSED, Step, Summary

_ROOT = pathlib.Path.cwd()
_KERNELS = pathlib.Path("cuda_kernels")
_TOOLS = toolchain.Toolchain("g++", ["python", "torch"], "nvcc", "90", {})


# The build.


def test_every_source_is_compiled():
    commands = building.compile_commands(_TOOLS, _ROOT, pathlib.Path("package"))
    compiled = [command[command.index("-c") + 1] for command in commands]
    sources = {
        str(_ROOT / path)
        for ending in ("*.cc", "*.cu")
        for path in _KERNELS.rglob(ending)
    }
    assert len(sources) > 30
    assert set(compiled) == sources
    targets = [command[-1] for command in commands]
    assert len(set(targets)) == len(targets)
    link = building.link_command(_TOOLS, commands, pathlib.Path("module.so"))
    assert set(targets) <= set(link)


def test_what_depends_on_the_processor_is_compiled_for_each():
    flags = building.read_flags(_KERNELS / "flags.bzl")
    assert "-fopenmp" in flags["COPTS"]
    assert list(flags["INSTRUCTION_SETS"]) == ["baseline", "avx2", "avx512"]
    asking = {
        str(path.relative_to(_KERNELS))
        for path in _KERNELS.rglob("*.cc")
        if "SAN_TABLE(" in path.read_text()
    }
    assert set(flags["FAMILIES"].values()) == asking


def test_bazel_reads_the_same_flags():
    build = (_KERNELS / "BUILD").read_text()
    assert (
        'load(":flags.bzl", "COPTS", "FAMILIES", "INSTRUCTION_SETS")' in build
    )
    rule = pathlib.Path("third_party/cuda/cuda_library.bzl").read_text()
    assert 'load(":flags.bzl", "NVCC_COPTS")' in rule
    flags = building.read_flags(pathlib.Path("third_party/cuda/flags.bzl"))
    (command,) = [
        command
        for command in building.compile_commands(_TOOLS, _ROOT, _ROOT)
        if command[-1].endswith("pairwise_forward.cu.o")
    ]
    assert set(flags["NVCC_COPTS"]) <= set(command)


def test_a_compiler_that_refuses_is_quoted(place):
    source = place.root / "cuda_kernels"
    source.mkdir()
    (source / "flags.bzl").write_text((_KERNELS / "flags.bzl").read_text())
    (source / "bad.cc").write_text("int main() { return x; }\n")
    tools = _TOOLS._replace(nvcc="", headers=[])
    with pytest.raises(CheckError, match=r"exit code 1\n(.|\n)*return x;"):
        building.build(place, tools, 60.0)


def test_what_is_built_is_kept_until_a_source_changes(place):
    source = place.root / "cuda_kernels"
    source.mkdir()
    (source / "__init__.py").touch()
    (source / "flags.bzl").write_text((_KERNELS / "flags.bzl").read_text())
    (source / "good.cc").write_text("int f() { return 1; }\n")
    tools = _TOOLS._replace(nvcc="", headers=[])

    def words():
        return building.build(place, tools, 60.0).words

    module = place.module / "cuda_kernels/_kernels.so"
    assert words() == "1 files"
    assert words().startswith("as before")
    before = module.read_bytes()
    (source / "good.cc").write_text("int f() { return 2; }\n")
    assert words() == "1 files"
    assert module.read_bytes() != before
    tools = tools._replace(facts={"g++": "another"})
    assert words() == "1 files"
    (source / "good.cc").write_text("int f() { return x; }\n")
    with pytest.raises(CheckError):
        words()
    (source / "good.cc").write_text("int f() { return 2; }\n")
    assert words() == "1 files"  # Nothing is kept from before the failure.


# Where everything is.


def test_packages_of_the_same_names_do_not_get_in_the_way(
    tmp_path, monkeypatch
):
    for name in ("tests", "tools"):
        package = tmp_path / "others" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    callers = [str(tmp_path / "others"), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(callers))
    place = Place(_ROOT, tmp_path / "build", tmp_path / "output")
    place.prepare()
    step = testing.run_file(
        "tests/tools/gpu_check_test.py",
        place,
        testing.Limits(file=60.0, test=60.0),
        options=("-k", "what_was_left_out_is_counted"),
    )
    assert step.words == "1 passed", step


def test_the_callers_packages_are_found(place, monkeypatch):
    folder = place.root / "callers"
    folder.mkdir()
    (folder / "only_the_caller_has.py").touch()
    callers = [str(folder), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(callers))
    command = [*place.python, "-c", "import only_the_caller_has"]
    log = place.output / "log"
    ended = processes.run(command, log, 60.0, place.environment, place.root)
    assert ended.code == 0, log.read_text()


# The table.


def test_the_table_has_what_is_to_come(tmp_path):
    path = tmp_path / "summary.txt"
    found = Summary(path, ["one", "two", "three"])
    assert path.read_text().count("NOT DONE") == 3
    found.add(Step("one", PASSED, "well", 3.2))
    found.add(Step("two", FAILED, "badly", details=["  very"]))
    table = path.read_text()
    assert table == found.table() + "\n"
    assert re.search(r"passed +3 s  one: well\n", table)
    assert "two: badly\n  very\nNOT DONE" in table
    assert table.endswith("2 of 3 steps failed or were not done\n")
    assert not found.good


def test_what_was_measured_becomes_a_table_to_choose_by(place):
    table = pathlib.Path("san/attention/cuda_times.py")
    (place.root / table).parent.mkdir(parents=True)
    (place.root / table).write_bytes(table.read_bytes())
    work = {"work": "patchwise core inference, layer 4", "peer": "unfused"}
    row = work | {"ours": 0.25, "theirs": 0.5, "wrong": False}
    figures = place.output / "core.json"
    content = {"GPU": "one", "date": "2027-01-02T00:00:00", "rows": [row]}
    figures.write_text(json.dumps(content))
    said = measuring.times_of(figures, place)
    assert "512 float32 inference: fused 0.25 ms, unfused 0.5" in said
    after = cuda_times.read(place.output / "cuda_times.py")
    key = ("patchwise", 7, 128, 512, "float32", "inference")
    assert after[key][2].startswith("measured on one, 2027-01-02")
    assert (place.root / table).read_bytes() == table.read_bytes()
    figures.write_text(json.dumps(content | {"rows": []}))
    assert "core.json must have cores" in measuring.times_of(figures, place)


def test_what_was_left_out_is_counted(tmp_path):
    found = Summary(tmp_path / "summary.txt", ["one"])
    found.add(Step("one", LEFT_OUT, "no gin"))
    assert found.good
    assert found.table().endswith("every step passed but the 1 left out")


# Packages to carry.


def test_what_is_carried_is_locked():
    lock = pathlib.Path("third_party/python/requirements_cpu.lock").read_text()
    chosen = carrying.requirements(lock)
    names = re.findall(r"^(\S+)==", chosen, re.M)
    assert names == ["gin-config", "absl-py", "tqdm"]
    assert chosen.count("--hash=") >= 3
    with pytest.raises(CheckError, match="has no gin-config"):
        carrying.requirements("absl-py==1 \\\n    --hash=sha256:0\n")


# The sanitizer.


@pytest.mark.parametrize("file", sorted({file for _, file in sanitizing.RUNS}))
def test_there_are_cases_to_sanitize(file):
    listed = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", file, "-m", "smallest"),
            *("--collect-only", "-q", "--import-mode=importlib"),
            *("--config-file=/dev/null", f"--rootdir={_ROOT}"),
            *("-p", "no:cacheprovider"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert listed.returncode == 0, listed.stdout
    assert "::" in listed.stdout or ": " in listed.stdout


def test_every_kernel_is_among_the_watched():
    for path in _KERNELS.rglob("*.cu"):
        text = path.read_text()
        before = text.split("__global__")[0]
        assert "namespace san" in before, path


def stand_in(folder, monkeypatch, code, words):
    """A compute-sanitizer that only says what one would, and that it saw."""
    program = folder / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n[ $1 = --help ] && echo --kernel-name && exit\n"
        f'echo "$@"; echo "{words}"; exit {code}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)


@pytest.mark.parametrize(
    ("code", "words", "verdict"),
    [
        (9, "Invalid __global__ read of size 4", PASSED),
        (0, "ERROR SUMMARY: 0 errors", FAILED),
        (9, "something else", FAILED),
        (255, "Invalid __global__ read of size 4", FAILED),
    ],
)
def test_a_sanitizer_that_sees_nothing_is_found_out(
    place, monkeypatch, code, words, verdict
):
    stand_in(place.root, monkeypatch, code, words)
    step = sanitizing.prove(place, 60.0)
    assert step.verdict == verdict
    log = place.output / "memcheck_finds_a_bad_access.log"
    assert "--tool memcheck --kernel-name kns=_ZN3san" in log.read_text()


def test_a_missing_sanitizer_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(pathlib.Path, "exists", lambda self: False)
    with pytest.raises(CheckError, match="missing here: compute-sanitizer"):
        sanitizing.command("memcheck")


# The command line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tests"], "step must be one of build, test, measure, carry"),
        (["--sections=op"], "--sections must be one of core, ops"),
        (["--sanitize", "--device=cpu"], "--sanitize must have a GPU"),
        (["build", "--tests=tests/ops"], "--tests must go with test"),
        (["test", "--quick"], "--quick must go with measure"),
        (["--seconds=0"], "--seconds must be positive, got 0"),
        (["--file_seconds=nan"], "--file_seconds must be positive, got nan"),
    ],
)
def test_wrong_flags(arguments, message):
    with pytest.raises(CheckError, match=message):
        options_of(arguments, "", _ROOT)


def test_a_flag_is_not_guessed(capsys):
    with pytest.raises(SystemExit):
        options_of(["--sanit"], "", _ROOT)
    assert "unrecognized arguments: --sanit" in capsys.readouterr().err


def test_a_python_with_nothing_at_all_is_told_what_is_missing(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", "tools/gpu_check", "build"),
            *(f"--build_dir={tmp_path}", "--device=cpu"),
        ],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 1, done.stderr
    assert "missing here: Python package torch" in done.stdout


# The driver.


def test_a_driver_that_is_too_old_is_named():
    toolchain._check_driver("13.0.88", 13)
    with pytest.raises(CheckError, match=r"nvcc 13\.0\.88 makes programs"):
        toolchain._check_driver("13.0.88", 12)


def test_everything_that_is_missing_is_named(place, monkeypatch):
    monkeypatch.setattr(toolchain, "_ask", lambda *_: {"missing": ["torch"]})
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(toolchain, "_nvcc", lambda: "")
    with pytest.raises(CheckError, match=r"Python package torch; g\+\+; nvcc"):
        toolchain.find(place, "cuda", tested=True)


def test_a_python_without_torch_says_so(place):
    answers = place.output / "answers.json"
    command = [*place.python, "-m", "tools.gpu_check.probe", "cpu"]
    command += [str(answers), "no_such_package"]
    ended = processes.run(
        command, place.output / "log", 60.0, place.environment, _ROOT
    )
    assert ended.code == 0
    facts = json.loads(answers.read_text())
    assert facts["missing"] == ["no_such_package"]
