"""The house's layers: nothing imports from a layer above its own."""

import ast
import pathlib
import re
import sys

import pytest

_LAYERS = ["cuda_kernels", "san", "eval", "train"]

# The files and folders that alone may import a library.
_COMMANDS = (
    "train/main.py",
    "train/ablation.py",
    "eval/imagenet.py",
    "eval/robustness.py",
)
_OWNERS = {
    "absl.app": _COMMANDS,
    "absl.flags": ("san/jobs/flags.py", *_COMMANDS),
    "cuda_kernels": "san/ops/",
    "jinja2": ("eval/footprints/viewer.py", "eval/page/render.py"),
    "matplotlib": (
        "eval/footprints/sheet.py",
        "eval/rotation_plot.py",
        "train/sweep/plot.py",
    ),
    "nvidia.dali": ("san/data/pipeline.py", "san/data/rand_augment.py"),
    "torch.utils.tensorboard": "train/curves.py",
}


def sources(layer):
    return sorted(pathlib.Path(layer).rglob("*.py"))


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("layer", _LAYERS)
def test_no_import_goes_up(layer):
    above = set(_LAYERS[_LAYERS.index(layer) + 1 :]) | {"tests", "tools"}
    files = sources(layer)
    assert files
    for path in files:
        tops = {module.split(".")[0] for module in imported_modules(path)}
        assert not tops & above, path


def test_san_has_a_ground_floor_and_an_attic():
    norms = set(imported_modules(pathlib.Path("san/norms.py")))
    assert norms and not [m for m in norms if m.split(".")[0] == "san"]
    for path in sources("san"):
        if path.parts[1] != "jobs":
            assert not [
                module
                for module in imported_modules(path)
                if module.startswith("san.jobs")
            ], path


@pytest.mark.parametrize("library", _OWNERS)
def test_a_library_has_one_owner(library):
    users = {
        str(path)
        for layer in _LAYERS[1:]
        for path in sources(layer)
        if any(
            module == library or module.startswith(library + ".")
            for module in imported_modules(path)
        )
    }
    assert users
    assert all(user.startswith(_OWNERS[library]) for user in users)


def test_gin_is_parsed_in_one_place():
    parses = re.compile(r"\bgin\.(parse_|finalize|clear_config|config\b)")
    users = [
        str(path)
        for layer in _LAYERS
        for path in sources(layer)
        if parses.search(path.read_text())
    ]
    assert users == ["san/jobs/config.py"]


def test_what_comes_before_torch_imports_the_standard_library():
    for name in ("before_torch", "stop_signals"):
        modules = set(imported_modules(pathlib.Path(f"third_party/{name}.py")))
        assert modules
        assert {
            module.split(".")[0]
            for module in modules - {"third_party", "third_party.stop_signals"}
        } <= sys.stdlib_module_names


def test_no_file_is_called_utils():
    names = {p.stem for layer in _LAYERS for p in sources(layer)}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


# Below the families of kernels: what each of them may include.
_TOOLBOXES = {"cpu", "cuda", "binding"}


def included_rooms(path):
    for name in re.findall(r'#include "cuda_kernels/(.+)"', path.read_text()):
        yield name.split("/")[0] if "/" in name else ""


def test_families_of_kernels_include_no_other_family():
    root = pathlib.Path("cuda_kernels")
    rooms = {path.name for path in root.iterdir() if path.is_dir()}
    families = rooms - _TOOLBOXES
    assert {"pairwise", "window_ops"} <= families
    sources = [p for p in root.rglob("*") if p.suffix in {".h", ".cc", ".cu"}]
    for path in sources:
        room = path.relative_to(root).parts[0] if path.parent != root else ""
        allowed = {
            "": {""},
            "cpu": {"", "cpu"},
            "cuda": {"", "cuda"},
            "binding": {"", "cpu", "cuda", "binding"},
        }.get(room, {"", *_TOOLBOXES, room})
        if path.name == "module.cc":
            allowed = rooms  # Where the families' functions come together.
        assert set(included_rooms(path)) <= allowed, path
