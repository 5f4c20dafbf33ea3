"""Builds, tests and measures the kernels on a GPU machine, without Bazel.

  python3 tools/gpu_check.py [--quick] [--packages=DIR] [--sanitize]

Needs the machine's nvcc, g++ and a Python with torch; gin-config, absl-py,
pytest, hypothesis, tqdm and matplotlib may lie unpacked in --packages. Builds
the module from the lists and flags of cuda_kernels/BUILD into --build_dir,
runs tests/cuda and the tests of kernels, operators and networks, then
//tools:benchmark, and prints one table. Nothing is skipped silently: what is
missing is named, and a skipped test counts as a failure. --device=cpu goes
through all of it on a machine without a GPU.

Only the standard library is imported before the build.
"""

import argparse
import ast
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = (
    "torch",
    "numpy",
    "gin",
    "absl",
    "pytest",
    "hypothesis",
    "tqdm",
    "matplotlib",
)
_SECTIONS = ("ops", "core", "models", "relations", "startup", "growth")


class CheckError(Exception):
    """What stops the check; one message for the user."""


def main() -> int:
    """Builds, tests, measures; returns the exit code."""
    options = _options()
    sys.path[:0] = [str(options.build_dir), str(_ROOT), *options.packages]
    try:
        tools = find_tools(options.device)
        build(tools, options)
        failures, summary = run_tests(options)
        failures += sanitize(options) if options.sanitize else 0
        bad, tables = run_benchmarks(options)
    except CheckError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    print(summary)
    print(tables)
    return 1 if failures or bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--build_dir", type=pathlib.Path, default=_ROOT / "runs/gpu_check"
    )
    parser.add_argument("--packages", action="append", default=[])
    parser.add_argument("--sections", default=",".join(_SECTIONS))
    parser.add_argument("--tests", default="cuda/kernels/ops/networks")
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sanitize", action="store_true")
    options = parser.parse_args()
    options.build_dir = options.build_dir.resolve()
    options.packages = [os.path.abspath(path) for path in options.packages]
    return options


def find_tools(device: str) -> dict[str, str]:
    """Compilers, headers and packages.

    Args:
      device: "cuda" or "cpu".

    Returns:
      Paths by name: cxx, python_headers, pybind11_headers; for CUDA also
      nvcc and architecture.

    Raises:
      CheckError: names everything that is missing.
    """
    missing = [
        f"Python package {name}"
        for name in _PACKAGES
        if importlib.util.find_spec(name) is None
    ]
    found = {
        "cxx": shutil.which("g++") or "",
        "python_headers": sysconfig.get_paths()["include"],
        "pybind11_headers": "",
    }
    torch = importlib.util.find_spec("torch")
    if torch and torch.origin:
        headers = pathlib.Path(torch.origin).parent / "include"
        found["pybind11_headers"] = str(headers)
    if not found["cxx"]:
        missing.append("g++")
    for name, header in (
        ("python_headers", "Python.h"),
        ("pybind11_headers", "pybind11/pybind11.h"),
    ):
        if not (pathlib.Path(found[name]) / header).exists():
            missing.append(f"{header} in {found[name] or 'torch'}")
    if device == "cuda":
        found["nvcc"] = _nvcc()
        if not found["nvcc"]:
            missing.append("nvcc (looked on PATH, in CUDA_HOME and /usr/local)")
        if torch:
            found["architecture"] = _architecture()
    if missing:
        raise CheckError("missing here: " + "; ".join(missing))
    return found


def _nvcc() -> str:
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    for place in places:
        nvcc = pathlib.Path(place, "bin/nvcc")
        if place and nvcc.exists():
            return str(nvcc)
    return shutil.which("nvcc") or ""


def _architecture() -> str:
    """Such as 90, of the GPU that torch finds."""
    import torch

    if not torch.cuda.is_available():
        raise CheckError(
            f"torch {torch.__version__} finds no GPU; --device=cpu runs"
            " everything without one"
        )
    return "".join(map(str, torch.cuda.get_device_capability()))


def read_build_file(path: pathlib.Path) -> tuple[list[str], dict, set[str]]:
    """What cuda_kernels/BUILD says; Starlark reads as Python here.

    Returns:
      The compiler's options; the options of each instruction set; the
      sources that are compiled once for each of those.

    Raises:
      CheckError: the file lacks a name of the three.
    """
    tree = ast.parse(path.read_text())
    wanted = {"COPTS", "INSTRUCTION_SETS", "FAMILIES"}
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in wanted
    }
    if values.keys() != wanted:
        raise CheckError(f"{path} lacks one of {', '.join(sorted(wanted))}")
    per_set = set(values["FAMILIES"].values())
    return values["COPTS"], values["INSTRUCTION_SETS"], per_set


def build(tools: dict[str, str], options: argparse.Namespace) -> None:
    """Makes a package cuda_kernels in the build folder."""
    source = _ROOT / "cuda_kernels"
    package = options.build_dir / "cuda_kernels"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    commands = compile_commands(tools, source, package)
    print(f"gpu_check: compiling {len(commands)} files", flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    objects = [command[-1] for command in commands]
    module = str(package / "_kernels.so")
    if "nvcc" in tools:
        link = [tools["nvcc"], "-ccbin", tools["cxx"], "-shared"]
        link += ["-Xcompiler", "-fopenmp", "-o", module, *objects, "-lgomp"]
    else:
        link = [tools["cxx"], "-shared", "-fopenmp", "-o", module, *objects]
    _run(link)
    (package / "__init__.py").symlink_to(source / "__init__.py")


def compile_commands(
    tools: dict[str, str], source: pathlib.Path, package: pathlib.Path
) -> list[list[str]]:
    """One command for each object file, which is its last word."""
    copts, instruction_sets, per_set = read_build_file(source / "BUILD")
    includes = [f"-I{_ROOT}"]
    for name in ("python_headers", "pybind11_headers"):
        includes += ["-isystem", tools[name]]
    cxx = [tools["cxx"], *copts, "-fPIC", "-fvisibility=hidden", *includes]
    if "nvcc" not in tools:
        cxx.append("-DSAN_NO_CUDA")
    commands = []
    for path in sorted(source.rglob("*.cc")):
        stem = "_".join(path.relative_to(source).parts)
        variants = {"": []}
        if str(path.relative_to(source)) in per_set:
            variants = instruction_sets
            if platform.machine() != "x86_64":
                variants = {"baseline": instruction_sets["baseline"]}
        for name, flags in variants.items():
            target = str(package / f"{stem}{name}.o")
            commands.append([*cxx, *flags, "-c", str(path), "-o", target])
    if "nvcc" in tools:
        nvcc = _nvcc_command(tools)
        for path in sorted(source.rglob("*.cu")):
            stem = "_".join(path.relative_to(source).parts)
            target = str(package / f"{stem}.o")
            commands.append([*nvcc, "-c", str(path), "-o", target])
    return commands


def _nvcc_command(tools: dict[str, str]) -> list[str]:
    # The flags of third_party/cuda/cuda_library.bzl, for this GPU alone.
    gpu = tools["architecture"]
    return [
        *(tools["nvcc"], "-ccbin", tools["cxx"], "-std=c++17", "-O3"),
        *("-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"),
        *("-gencode", f"arch=compute_{gpu},code=sm_{gpu}", "-lineinfo"),
        f"-I{_ROOT}",
    ]


def run_tests(options: argparse.Namespace) -> tuple[int, str]:
    """Runs the tests folder by folder.

    Returns:
      How many failed, were skipped or did not exist; a line for each folder.
    """
    folders = [f"tests/{name}" for name in options.tests.split("/")]
    if options.device == "cpu":
        folders = [folder for folder in folders if folder != "tests/cuda"]
    total, lines = 0, []
    for folder in folders:
        print(f"gpu_check: testing {folder}", flush=True)
        bad, line = _test(folder, options)
        total += bad
        lines.append(line)
    return total, "\n".join(lines)


def _test(folder: str, options: argparse.Namespace) -> tuple[int, str]:
    report = options.build_dir / "tests.xml"
    report.unlink(missing_ok=True)
    done = _python(options, *_pytest(folder), f"--junitxml={report}")
    if not report.exists():
        return 1, f"{folder}: pytest wrote no report, exit code {done}"
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [c for c in cases if _has(c, "failure") or _has(c, "error")]
    skipped = [c for c in cases if _has(c, "skipped")]
    passed = len(cases) - len(failed) - len(skipped)
    line = f"{folder}: {passed} passed, {len(failed)} failed"
    line += f", {len(skipped)} skipped"
    for case in failed + skipped:
        line += f"\n  not passed: {case.get('name')}"
    return len(failed) + len(skipped) + (not cases), line


def _pytest(folder: str) -> list[str]:
    return [
        *("-m", "pytest", folder, "-q", "-p", "no:cacheprovider"),
        *("--import-mode=importlib", "--config-file=/dev/null"),
        f"--rootdir={_ROOT}",
    ]


def _has(case: ElementTree.Element, child: str) -> bool:
    return case.find(child) is not None


def sanitize(options: argparse.Namespace) -> int:
    """Runs tests/cuda under compute-sanitizer; counts the tools that object."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise CheckError("missing here: compute-sanitizer")
    failures = 0
    for tool in ("memcheck", "racecheck"):
        prefix = (sanitizer, "--tool", tool, "--error-exitcode", "9")
        done = _python(options, *_pytest("tests/cuda"), prefix=prefix)
        print(f"gpu_check: {tool}: exit code {done}", flush=True)
        failures += done != 0
    return failures


def run_benchmarks(options: argparse.Namespace) -> tuple[int, str]:
    """Runs the benchmark's subcommands.

    Returns:
      How many of them failed; one table of all rows.
    """
    rows, failures, facts = [], 0, {}
    for section in filter(None, options.sections.split(",")):
        print(f"gpu_check: measuring {section}", flush=True)
        path = options.build_dir / f"{section}.json"
        path.unlink(missing_ok=True)
        flags = [f"--device={options.device}", f"--json={path}"]
        flags += [f"--only={options.only}", "--allow_noise"]
        if options.quick:
            flags.append("--quick")
        failures += bool(
            _python(options, "-m", "tools.benchmark.main", section, *flags)
        )
        if path.exists():
            content = json.loads(path.read_text())
            rows += content.pop("rows")
            facts = content
    return failures, _table(facts, rows)


def _table(facts: dict, records: list[dict]) -> str:
    if not records:
        return "nothing was measured"
    from tools.benchmark import report

    rows = [report.read_row(record) for record in records]
    return report.header(facts) + "\n" + report.table(rows)


def _python(
    options: argparse.Namespace, *arguments: str, prefix: tuple[str, ...] = ()
) -> int:
    paths = [str(options.build_dir), str(_ROOT), *options.packages]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        # The module that was built comes before the sources' package.
        "PYTHONSAFEPATH": "1",
    }
    command = [*prefix, sys.executable, *arguments]
    return subprocess.run(command, cwd=_ROOT, env=environment).returncode


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CheckError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
