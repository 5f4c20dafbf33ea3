import pathlib
import subprocess

import clang_format

_ENDINGS = {".cc", ".cu", ".h"}


def test_clang_format_finds_nothing():
    files = [
        str(path)
        for folder in ("cuda_kernels", "tests")
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.suffix in _ENDINGS
    ]
    assert "cuda_kernels/window.h" in files
    found = subprocess.run(
        [
            clang_format.get_executable("clang-format"),
            "--dry-run",
            "-Werror",
            *files,
        ],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
