"""Python packages for a machine that has none of them and no network."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence

from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, LEFT_OUT, PASSED, Step

STEP = "carry"
# Of pure Python, so that any Python takes them; san needs the first, the
# benchmark the next two.
_PACKAGES = {"gin": "gin-config", "absl": "absl-py", "tqdm": "tqdm"}
FOLDER = "packages"  # In the build folder.
_LOCK = "third_party/python/requirements_cpu.lock"


def missing_step(
    name: str, text: str, seconds: float, without: Sequence[str]
) -> Step | None:
    """The step that could not be, for want of a package.

    Args:
      name: of the step.
      text: what Python said.
      seconds: that it took.
      without: packages without which the user is content.

    Returns:
      The step; None where something else was the matter.
    """
    match = re.search(r"ModuleNotFoundError: No module named '(\w+)'", text)
    if match is None:
        return None
    package = match[1]
    words = f"not run: it needs {package}, which is not here"
    if package in without:
        return Step(name, LEFT_OUT, words, seconds)
    hint = f"  --without={package} does without"
    if package in _PACKAGES:
        hint += (
            f"; `gpu_check carry` fetches {_PACKAGES[package]} where there is"
            " a network"
        )
    return Step(name, FAILED, words, seconds, (hint,))


def carry(place: Place) -> Step:
    """Puts the packages into a folder that the other steps look into.

    Args:
      place: where everything is; its build folder gets them.

    Returns:
      The step.

    Raises:
      CheckError: if pip cannot have them.
    """
    start = time.monotonic()
    chosen = place.build / "carried.lock"
    chosen.write_text(requirements((place.root / _LOCK).read_text()))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--upgrade"]
    command += ["--target", str(place.build / FOLDER)]
    done = subprocess.run(
        [*command, "--requirement", str(chosen)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise CheckError(f"carry: pip failed\n{done.stdout}")
    words = f"{', '.join(_PACKAGES.values())} into {place.build / FOLDER}"
    return Step(STEP, PASSED, words, time.monotonic() - start)


def requirements(lock: str) -> str:
    """The packages' entries in a lock, with their hashes."""
    entries = []
    for name in _PACKAGES.values():
        pattern = rf"^{name}==.*\\\n(?:    --hash=.*\n)+"
        entry = re.search(pattern, lock, re.M)
        if entry is None:
            raise CheckError(f"carry: {_LOCK} has no {name}")
        entries.append(entry[0])
    return "".join(entries)
