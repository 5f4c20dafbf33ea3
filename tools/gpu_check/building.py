"""The compiled module, for this machine's Python and GPU."""

import hashlib
import json
import os
import pathlib
import platform
import runpy
import time
from typing import Any

from tools.gpu_check import processes
from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import PASSED, Step
from tools.gpu_check.toolchain import Toolchain

STEP = "build"


def build(place: Place, tools: Toolchain, seconds: float) -> Step:
    """Makes a package cuda_kernels in the folder place.module.

    What an earlier call has made is kept if it would come out the same.

    Args:
      place: where everything is.
      tools: what to build with.
      seconds: it may take.

    Returns:
      The step.

    Raises:
      CheckError: a compiler refused a source, or took too long.
    """
    start = time.monotonic()
    package = place.module / "cuda_kernels"
    package.mkdir(parents=True, exist_ok=True)
    log = place.fresh(STEP, "log")
    commands = compile_commands(tools, place.root, package)
    link = link_command(tools, commands, package / "_kernels.so")
    inputs, made = _inputs(place.root, [*commands, link], tools), package / "of"
    if made.exists() and made.read_text() == inputs:
        return Step(STEP, PASSED, "as before: no source or compiler changed")
    made.unlink(missing_ok=True)
    print(f"gpu_check: {len(commands)} files to compile", flush=True)
    for step in (commands, [link]):
        left = seconds - (time.monotonic() - start)
        ended = processes.run_all(step, log, left, dict(os.environ), place.root)
        if ended.code:
            raise CheckError(f"build: {ended.words}\n{log.read_text()[-6000:]}")
    init = package / "__init__.py"
    init.unlink(missing_ok=True)
    init.symlink_to(place.root / "cuda_kernels/__init__.py")
    made.write_text(inputs)
    return Step(
        STEP, PASSED, f"{len(commands)} files", time.monotonic() - start
    )


def compile_commands(
    tools: Toolchain, root: pathlib.Path, package: pathlib.Path
) -> list[list[str]]:
    """One command for each object file, which is its last word.

    Args:
      tools: what to build with.
      root: of the project; its flags.bzl files say how.
      package: folder of the object files.

    Returns:
      Commands for every source below cuda_kernels.
    """
    source = root / "cuda_kernels"
    flags = read_flags(source / "flags.bzl")
    includes = [f"-I{root}"]
    for folder in tools.headers:
        includes += ["-isystem", folder]
    cxx = [tools.cxx, *flags["COPTS"], "-fPIC", "-fvisibility=hidden"]
    cxx += [*includes, *([] if tools.nvcc else ["-DSAN_NO_CUDA"])]
    sets = flags["INSTRUCTION_SETS"]
    if platform.machine() != "x86_64":
        sets = {"baseline": sets["baseline"]}
    commands = []
    for path in sorted(source.rglob("*.cc")):
        name = str(path.relative_to(source))
        in_sets = name in flags["FAMILIES"].values()
        for instructions, options in (sets if in_sets else {"": []}).items():
            target = package / f"{name.replace('/', '_')}{instructions}.o"
            commands.append(_compile([*cxx, *options], path, target))
    if tools.nvcc:
        gpu = tools.architecture
        copts = read_flags(root / "third_party/cuda/flags.bzl")["NVCC_COPTS"]
        nvcc = [tools.nvcc, "-ccbin", tools.cxx, *copts, f"-I{root}"]
        # For this GPU alone; lines are for the sanitizer's messages.
        nvcc += ["-gencode", f"arch=compute_{gpu},code=sm_{gpu}", "-lineinfo"]
        for path in sorted(source.rglob("*.cu")):
            name = str(path.relative_to(source)).replace("/", "_")
            commands.append(_compile(nvcc, path, package / f"{name}.o"))
    return commands


def link_command(
    tools: Toolchain, commands: list[list[str]], module: pathlib.Path
) -> list[str]:
    """What makes the module of the objects that commands make."""
    objects = [command[-1] for command in commands]
    if tools.nvcc:
        link = [tools.nvcc, "-ccbin", tools.cxx, "-shared"]
        link += ["-Xcompiler", "-fopenmp", "-o", str(module), *objects]
        return [*link, "-lgomp"]
    return [tools.cxx, "-shared", "-fopenmp", "-o", str(module), *objects]


def read_flags(path: pathlib.Path) -> dict[str, Any]:
    """The values of a flags.bzl; what is a literal there is one here."""
    return runpy.run_path(str(path))


def _compile(
    start: list[str], path: pathlib.Path, target: pathlib.Path
) -> list[str]:
    return [*start, "-c", str(path), "-o", str(target)]


def _inputs(
    root: pathlib.Path, commands: list[list[str]], tools: Toolchain
) -> str:
    """All that the module depends on, as text."""
    paths = sorted((root / "cuda_kernels").rglob("*"))
    digests = {
        str(path.relative_to(root)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in paths
        if path.suffix in (".cc", ".cu", ".h")
    }
    return json.dumps([digests, commands, tools.facts], indent=1) + "\n"
