"""Tests under compute-sanitizer: those that tests/cuda mark as smallest.

Only our own kernels are watched, and torch takes each tensor's memory from
CUDA itself: in a pool of torch's, one tensor's end is another's beginning.
"""

import pathlib
import shutil
import subprocess
import time

from tools.gpu_check import processes, testing
from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, PASSED, Step

# What is run under which tool; races are in shared memory, which others hardly
# use, and their search takes longest.
RUNS = (
    ("memcheck", "tests/cuda/kernels_test.py"),
    ("memcheck", "tests/cuda/norm_relu_test.py"),
    ("memcheck", "tests/cuda/patchwise_test.py"),
    ("memcheck", "tests/cuda/pairwise_test.py"),
    ("racecheck", "tests/cuda/patchwise_test.py"),
    ("racecheck", "tests/cuda/pairwise_test.py"),
)
SELF_TEST = "memcheck finds a bad access"
_FOUND = 9  # Exit code where a tool objects to something.
_KERNELS = "_ZN3san"  # How the names of ours begin.
_VARIABLES = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def step_name(tool: str, file: str) -> str:
    """Of the step that runs a file under a tool."""
    return f"{tool} {file}"


def command(tool: str) -> list[str]:
    """The words that run a command under a tool.

    Raises:
      CheckError: if there is no compute-sanitizer.
    """
    program = shutil.which("compute-sanitizer")
    beside = pathlib.Path("/usr/local/cuda/bin/compute-sanitizer")
    if program is None and beside.exists():
        program = str(beside)
    if program is None:
        raise CheckError("missing here: compute-sanitizer (for --sanitize)")
    # Older ones know the first option by the second name.
    options = subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    only = "--kernel-name" if "--kernel-name" in options else "--kernel-regex"
    return [
        *(program, "--tool", tool, only, f"kns={_KERNELS}"),
        *("--error-exitcode", str(_FOUND), "--launch-timeout", "120"),
    ]


def prove(place: Place, seconds: float) -> Step:
    """Sees that memcheck objects to one of our kernels where it should."""
    start = time.monotonic()
    log = place.fresh(SELF_TEST, "log")
    ended = processes.run(
        [*command("memcheck"), *place.python, "-m", "tests.cuda.bad_access"],
        log,
        seconds,
        place.environment | _VARIABLES,
        place.root,
    )
    seen = "Invalid __global__" in log.read_text(errors="replace")
    good = ended.code == _FOUND and not ended.why and seen
    words = "as it should"
    if not good:
        words = f"it did not, so that it finds nothing here: {ended.words}"
    seconds = time.monotonic() - start
    return Step(SELF_TEST, PASSED if good else FAILED, words, seconds)


def run(tool: str, file: str, place: Place, limits: testing.Limits) -> Step:
    """The smallest cases of a test file under a tool."""
    return testing.run_file(
        file,
        place,
        limits,
        name=step_name(tool, file),
        prefix=command(tool),
        options=("-m", "smallest"),
        variables=_VARIABLES,
    )
