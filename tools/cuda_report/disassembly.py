"""Machine code of kernels, by NVIDIA's cuobjdump and nvdisasm.

Reads what was built, an object, a library or a cubin, and nothing else: neither
sources nor a GPU.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from tools.cuda_report import names

# The wheels' folder, from the folder of this project in Bazel's runfiles.
_RUNFILES = "../cuda_disassembler/site/nvidia/cu13/bin"

_ARCHITECTURE = re.compile(r"^arch = (sm_\w+)$")
_FUNCTION = re.compile(r"^\s*Function\s*:?\s*([\w$.]+?):?$")
_RESOURCE = re.compile(r"(\w+)(?:\[\d+\])?:(\d+)")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s")
_PREDICATE = re.compile(r"^@!?U?P\w+\s+")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a kernel.

    Attributes:
      address: in bytes from the kernel's beginning.
      text: as disassembled, with its predicate.
      opcode: with its modifiers, such as `LDG.E.128`.
    """

    address: int
    text: str
    opcode: str

    @property
    def base(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.split(".", 1)[0]

    @property
    def conditional(self) -> bool:
        """Whether a predicate decides if it has an effect."""
        return self.text.startswith("@")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel for one architecture.

    Attributes:
      name: see names.readable.
      architecture: such as `sm_90`.
      registers: of a thread.
      stack: bytes of a thread's stack, which spills and calls take.
      local: bytes of local memory beside the stack.
      shared: bytes of static shared memory, the reserved ones included.
      instructions: in the order of their addresses.
    """

    name: str
    architecture: str
    registers: int
    stack: int
    local: int
    shared: int
    instructions: tuple[Instruction, ...]

    @property
    def spills(self) -> int:
        """Accesses to local memory; of kernels without arrays there, spills."""
        return sum(i.base in ("LDL", "STL") for i in self.instructions)


def read(paths: Iterable[pathlib.Path], architecture: str) -> list[Kernel]:
    """All kernels of some files for an architecture, by name.

    Raises:
      ValueError: if a file cannot be read, none has code for this architecture,
        or a tool is missing.
    """
    kernels: list[Kernel] = []
    others: set[str] = set()
    files = list(paths)
    for path in files:
        found, architectures = _read_file(path, architecture)
        kernels += found
        others |= architectures
    if not kernels:
        raise ValueError(
            f"cuda_report: {' '.join(map(str, files)) or 'the files'} must have"
            f" kernels for {architecture}, got "
            + (f"some for {', '.join(sorted(others))}" if others else "none")
            + ("" if others else " (built by --config=nocuda?)")
        )
    return sorted(kernels, key=lambda kernel: kernel.name)


def _read_file(
    path: pathlib.Path, architecture: str
) -> tuple[list[Kernel], set[str]]:
    usage = resources(_run("--dump-resource-usage", path))
    of_all = {found for found, _ in usage}
    if architecture not in of_all:
        return [], of_all
    code = instructions(_run("-sass", "-arch", architecture, path))
    kernels = []
    for (found, symbol), used in usage.items():
        if found != architecture:
            continue
        if symbol not in code:
            raise ValueError(
                f"cuda_report: cuobjdump must disassemble {symbol} of {path},"
                " got nothing"
            )
        kernels.append(
            Kernel(
                names.readable(symbol),
                architecture,
                used["REG"],
                used["STACK"],
                used["LOCAL"],
                used["SHARED"],
                code[symbol],
            )
        )
    return kernels, of_all


def resources(text: str) -> dict[tuple[str, str], dict[str, int]]:
    """What cuobjdump --dump-resource-usage says, by architecture and symbol."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    architecture = symbol = ""
    for line in text.splitlines():
        if match := _ARCHITECTURE.match(line):
            architecture = match[1]
        elif match := _FUNCTION.match(line):
            symbol = match[1]
        elif symbol and "REG:" in line:
            found[architecture, symbol] = {
                name: int(value) for name, value in _RESOURCE.findall(line)
            }
            symbol = ""
    return found


def instructions(text: str) -> dict[str, tuple[Instruction, ...]]:
    """What cuobjdump -sass says of one architecture, by symbol."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if match := _FUNCTION.match(line):
            current = found.setdefault(match[1], [])
        elif match := _INSTRUCTION.match(line):
            words = _PREDICATE.sub("", match[2]).split()
            if words:
                current.append(
                    Instruction(int(match[1], 16), match[2], words[0])
                )
    return {symbol: tuple(code) for symbol, code in found.items()}


def _run(*arguments: str | pathlib.Path) -> str:
    program = find_tool("cuobjdump")
    folders = [
        str(find_tool(name).parent) for name in ("cuobjdump", "nvdisasm")
    ]
    folders.append(os.environ.get("PATH", ""))
    path = pathlib.Path(arguments[-1])
    if not path.is_file():
        raise ValueError(f"cuda_report: {path} must be a file, got none")
    result = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": os.pathsep.join(folders)},
    )
    # Of a file without any code for a GPU it says so and fails.
    if result.returncode and "does not contain device code" not in (
        result.stdout + result.stderr
    ):
        raise ValueError(
            f"cuda_report: cuobjdump must read {path}, got "
            + (_said(result.stdout, result.stderr) or "nothing")
        )
    return result.stdout


def _said(*texts: str) -> str:
    return " ".join(" ".join(text.split()) for text in texts).strip()[-200:]


def find_tool(name: str) -> pathlib.Path:
    """A program of the CUDA toolkit: Bazel's, or else that of the PATH.

    Raises:
      ValueError: if there is neither.
    """
    project = pathlib.Path(__file__).parents[2]
    locked = project / _RUNFILES / name
    if locked.is_file():
        return locked
    other = shutil.which(name)
    if other is None:
        raise ValueError(
            f"cuda_report: {name} must come with bazel run"
            " //tools:cuda_report, or be in the PATH, got neither"
        )
    return pathlib.Path(other)


def by_name(kernels: Sequence[Kernel]) -> dict[str, Kernel]:
    """The kernels of one architecture by their names.

    Where that is no other's, also by the name without the source file: so it
    stays known where it is moved.
    """
    short: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        short.setdefault(names.without_source(kernel.name), []).append(kernel)
    found = {name: same[0] for name, same in short.items() if len(same) == 1}
    return found | {kernel.name: kernel for kernel in kernels}
