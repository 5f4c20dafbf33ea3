"""Regenerates the hash locks from their requirements.in files.

    bazel run //tools:lock

Writes third_party/python/requirements_{cpu,cuda,export,docs}.lock and
third_party/cuda/requirements{,_disassembler}.lock, each for every supported
Python: one version of a package where one will do, and the hashes of all its
files. Those for export and docs hold what the main ones lack, beside the
versions they have.

torch's CPU build is not on the package index but on PyTorch's own, which is
asked for its hashes. Where that cannot be reached, the hashes that the lock has
stay, if the version does: the files of a release never change.
"""

import os
import pathlib
import re
import subprocess
import sys
import urllib.request

# What the locks of few targets are beside.
_MAIN = "python/requirements_cuda.lock"
_BESIDE = ("python/requirements_export.lock", "python/requirements_docs.lock")

# Requirements, lock, further options of uv.
_LOCKS = (
    (
        "python/requirements.in",
        "python/requirements_cpu.lock",
        ["--override", "python/without_cuda.txt"],
    ),
    ("python/requirements.in", _MAIN, []),
    ("python/requirements_export.in", _BESIDE[0], []),
    ("python/requirements_docs.in", _BESIDE[1], []),
    ("cuda/requirements.in", "cuda/requirements.lock", []),
    (
        "cuda/requirements_disassembler.in",
        "cuda/requirements_disassembler.lock",
        [],
    ),
)

_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
_MACHINES = ("x86_64", "aarch64")

# torch in a lock: its version and its hashes.
_TORCH = re.compile(r"^torch==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.M)


def main() -> None:
    """Writes each lock; stops at the first that cannot be resolved."""
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY", os.getcwd())
    os.chdir(pathlib.Path(workspace) / "third_party")
    pythons = pathlib.Path("python/supported.txt").read_text().split()
    for requirements, lock, options in _LOCKS:
        print(f"locking {lock}", flush=True)
        before = pathlib.Path(lock).read_text()
        command = [sys.executable, "-m", "uv", "pip", "compile", requirements]
        command += ["--quiet", "--universal", "--fork-strategy", "fewest"]
        command += ["--generate-hashes", "--python-version", pythons[-1]]
        command += ["--no-emit-index-url"]
        command += ["--custom-compile-command", "bazel run //tools:lock"]
        command += ["--output-file", lock, *options]
        if lock in _BESIDE:
            command += beside(_MAIN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if lock.endswith("_cpu.lock"):
            after = pathlib.Path(lock).read_text()
            after = with_cpu_torch(after, before, pythons)
            pathlib.Path(lock).write_text(after)


def beside(lock: str) -> list[str]:
    """Options of uv for a lock of what another one lacks, at its versions.

    Args:
      lock: path of the other one.
    """
    names = re.findall(r"^([\w.-]+)==", pathlib.Path(lock).read_text(), re.M)
    return ["--constraint", lock, *(f"--no-emit-package={n}" for n in names)]


def with_cpu_torch(lock: str, before: str, pythons: list[str]) -> str:
    """A lock with torch's CPU build in place of the one for CUDA.

    Args:
      lock: what the resolver wrote.
      before: the former lock.
      pythons: the supported versions.
    """
    resolved = _TORCH.search(lock)
    assert resolved, "torch must be locked"
    version = f"{resolved[1]}+cpu"
    try:
        with urllib.request.urlopen(_TORCH_CPU_INDEX, timeout=30) as page:
            hashes = wheel_hashes(page.read().decode(), version, pythons)
    except OSError as error:
        hashes = kept_hashes(before, version, str(error))
    lines = "".join(f" \\\n    --hash=sha256:{h}" for h in sorted(hashes))
    return _TORCH.sub(lambda _: f"torch=={version}{lines}\n", lock)


def wheel_hashes(page: str, version: str, pythons: list[str]) -> list[str]:
    """The hashes of torch's Linux wheels on a page of a package index.

    Raises:
      SystemExit: if one is missing.
    """
    hashes = []
    for python in pythons:
        for machine in _MACHINES:
            tag = "cp" + python.replace(".", "")
            wheel = re.search(
                rf"torch-{re.escape(version.replace('+', '%2B'))}-{tag}-{tag}-"
                rf"manylinux[0-9a-z_]*_{machine}\.whl#sha256=([0-9a-f]{{64}})",
                page,
            )
            if not wheel:
                sys.exit(
                    f"lock: torch {version} must have a wheel for CPython"
                    f" {python} on {machine}, got none"
                )
            hashes.append(wheel[1])
    return hashes


def kept_hashes(before: str, version: str, reason: str) -> list[str]:
    """The hashes of torch in the former lock.

    Raises:
      SystemExit: if that is another version.
    """
    former = _TORCH.search(before)
    if not former or former[1] != version:
        sys.exit(
            f"lock: {_TORCH_CPU_INDEX} must be reached for the hashes of torch"
            f" {version}, got {reason}"
        )
    print(f"keeping the hashes of torch {version}: {reason}", flush=True)
    return re.findall(r"--hash=sha256:(\w+)", former[2])


if __name__ == "__main__":
    main()
