"""What tools/gpu_check.py reads from the build, without a GPU."""

import pathlib

import pytest

from tools import gpu_check

_KERNELS = pathlib.Path("cuda_kernels")


def test_every_source_is_compiled():
    tools = {
        "cxx": "g++",
        "nvcc": "nvcc",
        "architecture": "90",
        "python_headers": "python",
        "pybind11_headers": "pybind11",
    }
    commands = gpu_check.compile_commands(
        tools, _KERNELS, pathlib.Path("package")
    )
    compiled = [command[command.index("-c") + 1] for command in commands]
    sources = {
        str(path)
        for ending in ("*.cc", "*.cu")
        for path in _KERNELS.rglob(ending)
    }
    assert len(sources) > 30
    assert set(compiled) == sources
    targets = [command[-1] for command in commands]
    assert len(set(targets)) == len(targets)


def test_what_depends_on_the_processor_is_compiled_for_each():
    copts, instruction_sets, per_set = gpu_check.read_build_file(
        _KERNELS / "BUILD"
    )
    assert "-fopenmp" in copts
    assert list(instruction_sets) == ["baseline", "avx2", "avx512"]
    asking = {
        str(path.relative_to(_KERNELS))
        for path in _KERNELS.rglob("*.cc")
        if "SAN_TABLE(" in path.read_text()
    }
    assert per_set == asking


def test_a_build_file_without_the_lists_is_refused(tmp_path):
    path = tmp_path / "BUILD"
    path.write_text('COPTS = ["-O3"]\n')
    with pytest.raises(
        gpu_check.CheckError, match="lacks one of COPTS, FAMILIES"
    ):
        gpu_check.read_build_file(path)
