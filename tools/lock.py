"""Regenerates the hash locks from their requirements.in files.

    bazel run //tools:lock

Writes third_party/python/requirements_{cpu,cuda}.lock and
third_party/cuda/requirements.lock. A folder of wheels named by the
environment variable PIP_FIND_LINKS is searched beside the package index.
"""

import os
import pathlib
import subprocess
import sys

# Requirements, lock, further options of uv.
_LOCKS = (
    ("python/requirements.in", "python/requirements_cpu.lock", ["cpu"]),
    ("python/requirements.in", "python/requirements_cuda.lock", []),
    ("cuda/requirements.in", "cuda/requirements.lock", []),
)


def options(torch_backend):
    """Where the lock's packages may come from."""
    if not torch_backend:
        return []
    if folder := os.environ.get("PIP_FIND_LINKS"):
        return ["--find-links", folder]
    return ["--torch-backend", *torch_backend]


def main():
    """Writes each lock; stops at the first that cannot be resolved."""
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY", os.getcwd())
    os.chdir(pathlib.Path(workspace) / "third_party")
    for requirements, lock, torch_backend in _LOCKS:
        print(f"locking {lock}", flush=True)
        command = [sys.executable, "-m", "uv", "pip", "compile", requirements]
        command += ["--quiet", "--generate-hashes", "--python-version", "3.11"]
        command += ["--no-emit-find-links", "--no-emit-index-url"]
        command += ["--custom-compile-command", "bazel run //tools:lock"]
        command += ["--output-file", lock, *options(torch_backend)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
