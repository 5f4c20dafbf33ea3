"""Compilers, headers and packages of the machine."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from typing import NamedTuple

from tools.gpu_check import processes
from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import PASSED, Step

STEP = "machine"
_SECONDS = 120.0  # A GPU that does not answer by then does not answer.


class Toolchain(NamedTuple):
    """What the kernels are built with.

    Attributes:
      cxx: the C++ compiler.
      headers: folders of Python's and pybind11's.
      nvcc: the CUDA compiler; "" builds for the CPU alone.
      architecture: such as 90, of the GPU.
      facts: versions of all these, and of torch.
    """

    cxx: str
    headers: Sequence[str]
    nvcc: str
    architecture: str
    facts: dict[str, str]


def find(place: Place, device: str, tested: bool) -> tuple[Toolchain, Step]:
    """Looks for all that the steps to come need.

    Args:
      place: where everything is.
      device: "cuda" or "cpu".
      tested: whether there will be tests.

    Returns:
      What was found, and the step of finding it.

    Raises:
      CheckError: names everything that is missing.
    """
    start = time.monotonic()
    packages = ["torch", "numpy", *(["pytest"] if tested else [])]
    facts = _ask(place, device, [*packages, *place.without])
    absent = facts["missing"]
    missing = [f"Python package {name}" for name in packages if name in absent]
    cxx, nvcc = shutil.which("g++") or "", ""
    if not cxx:
        missing.append("g++")
    headers = [sysconfig.get_paths()["include"], facts.get("torch_headers", "")]
    for folder, header in zip(
        headers, ("Python.h", "pybind11/pybind11.h"), strict=True
    ):
        if folder and not pathlib.Path(folder, header).exists():
            missing.append(f"{header} in {folder}")
    if device == "cuda":
        nvcc = _nvcc()
        if not nvcc:
            missing.append("nvcc (looked in CUDA_HOME, /usr/local and PATH)")
        if facts.get("GPU") == "":
            missing.append(
                f"a GPU that torch {facts['torch']} can use (--device=cpu goes"
                " through all of it without one)"
            )
    if missing:
        raise CheckError("missing here: " + "; ".join(missing))
    versions = {"g++": _version(cxx)}
    if nvcc:
        versions["nvcc"] = _version(nvcc)
        _check_driver(versions["nvcc"], facts["driver_cuda"])
    names = ("GPU", "Python", "torch")
    versions |= {name: facts[name] for name in names if name in facts}
    words = ", ".join(f"{name} {value}" for name, value in versions.items())
    details = [
        f"  --without={name} has no effect: it is here"
        for name in place.without
        if name not in absent
    ]
    architecture = facts.get("architecture", "")
    return (
        Toolchain(cxx, headers, nvcc, architecture, versions),
        Step(STEP, PASSED, words, time.monotonic() - start, details),
    )


def _ask(place: Place, device: str, packages: Sequence[str]) -> dict:
    log, answers = place.fresh(STEP, "log"), place.fresh(STEP, "json")
    ended = processes.run(
        [
            *(*place.python, "-m", "tools.gpu_check.probe"),
            *(device, str(answers), *packages),
        ],
        log,
        _SECONDS,
        place.environment,
        place.root,
    )
    if ended.code or not answers.exists():
        raise CheckError(
            f"asking for torch and a GPU: {ended.words}\n{log.read_text()}"
        )
    return json.loads(answers.read_text())


def _nvcc() -> str:
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    for place in places:
        nvcc = pathlib.Path(place, "bin/nvcc")
        if place and nvcc.exists():
            return str(nvcc)
    return shutil.which("nvcc") or ""


def _version(compiler: str) -> str:
    """Such as 12.2.0; the whole text where there is no such number."""
    text = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=60
    ).stdout
    numbers = re.findall(r"\d+\.\d+\.\d+", text)
    return numbers[0] if numbers else text


def _check_driver(nvcc: str, driver: int) -> None:
    # The runtime of CUDA is linked into the module, from nvcc's installation.
    if int(nvcc.split(".")[0]) > driver:
        raise CheckError(
            f"nvcc {nvcc} makes programs for drivers of its CUDA, but the one"
            f" here is of CUDA {driver}; CUDA_HOME names another nvcc"
        )
