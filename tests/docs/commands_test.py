"""The command lines of the pages: their targets, flags, files and settings."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from torch.distributed.run import get_args_parser

from tests.docs import command_lines, pages, trained
from tests.train import command_server
from tools.benchmark.main import SECTIONS

# Each target that pages run: its module, and what may stand beside its flags:
# anything ([]), some words, or nothing (None).
_TARGETS = {
    "//eval:imagenet": ("eval.imagenet", None),
    "//eval:robustness": ("eval.robustness", ["rotations", "attack"]),
    "//tools:benchmark": ("tools.benchmark.main", list(SECTIONS)),
    "//tools:checkpoint": (
        "tools.checkpoint.main",
        ["export", "import", "inspect"],
    ),
    "//tools:compare_runs": ("tools.compare_runs.main", []),
    "//tools:cuda_report": ("tools.cuda_report.main", None),
    "//tools:data_doctor": ("tools.data_doctor.main", None),
    "//tools:export": ("tools.export.main", None),
    "//tools:paper_tables": ("tools.paper_tables.main", None),
    "//tools:predict": ("tools.predict.main", []),
    "//tools:visualize": ("tools.visualize", None),
    "//train:ablation": ("train.ablation", None),
    "//train:main": ("train.main", None),
}
# Without flags of their own.
_PLAIN = {"//tools:lock", "//tools:python"}
# Quick enough to be run: those that look at a trained network.
_RUN = {
    "//eval:imagenet",
    "//eval:robustness",
    "//tools:compare_runs",
    "//tools:predict",
    "//tools:visualize",
}
_TRAINED = re.compile(r"--workdir=runs/(small|san10_pair-digits)$")

_BAZEL = ("bazel", "./bazelw")
_TRAIN = "bazel-bin/train/main"


def all_commands():
    """Every command of every page, and where it stands."""
    return [
        (block.place, words)
        for page in pages.all_pages()
        for block in pages.blocks(page)
        for words in command_lines.commands(block)
    ]


def run_lines():
    """What follows `bazel run TARGET --`, by target."""
    lines = {target: [] for target in (*_TARGETS, *_PLAIN)}
    for place, (program, *words) in all_commands():
        if program == _TRAIN:
            lines["//train:main"].append((place, words))
        elif program == "sbatch":
            at = words.index("tools/slurm/train.sbatch")
            lines["//train:main"].append((place, words[at + 1 :]))
        elif program in _BAZEL and words[0] == "run":
            end = words.index("--") if "--" in words else len(words)
            target = words[end - 1]
            assert target in lines, f"{place}: {target}"
            lines[target].append((place, words[end + 1 :]))
    for place, words in lines["//tools:python"]:
        if words[:2] == ["-m", "torch.distributed.run"]:
            own = get_args_parser().parse_args(words[2:])
            assert own.training_script == _TRAIN, place
            lines["//train:main"].append((place, own.training_script_args))
    return lines


_LINES = run_lines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained folder, with the files that pages have one write."""
    made = trained.make(tmp_path_factory.mktemp("trained"))
    for page in pages.all_pages():
        for block in pages.blocks(page):
            if block.file:
                (made / block.file).write_text(block.text)
    return made


def probe(module, positional, lines, folder):
    """What is wrong with lines of arguments of a command; None for nothing."""
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.docs.flags_probe",
            module,
            json.dumps(positional),
        ],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "BUILD_WORKING_DIRECTORY": str(folder)},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.parametrize("target", _TARGETS)
def test_lines_fit_the_command(target, folder):
    module, positional = _TARGETS[target]
    places, lines = zip(*_LINES[target], strict=True)
    problems = probe(module, positional, lines, folder)
    assert [
        (place, problem)
        for place, problem in zip(places, problems, strict=True)
        if problem
    ] == []


def test_lines_that_do_not_fit(folder):
    network = "--gin_file=san10_pair.gin"
    lines = [
        ["--no_such_flag"],
        ["--gin_file=no_such_file.gin"],
        [network, "--gin_param=Recipe.epochs=0"],
        [network, "--gin_param=Recipe.epoch=1"],
        [network, "word"],
        [network, "--epochs=5"],
    ]
    *problems, none = probe("train.main", None, lines, folder)
    for problem, word in zip(
        problems,
        ["no_such_flag", "no_such_file", "epochs must", "'epoch'", "word"],
        strict=True,
    ):
        assert word in problem
    assert none is None


def looks():
    """The lines that look at a trained network, each once."""
    return sorted(
        {
            (target, *words)
            for target in _RUN
            for _, words in _LINES[target]
            if target == "//tools:compare_runs"
            or any(map(_TRAINED.match, words))
            if "attack" not in words
        }
    )


@pytest.mark.parametrize("line", looks(), ids=" ".join)
def test_lines_that_look_at_a_network_run(line, folder):
    target, *words = line
    code, _, stderr = command_server.run(
        _TARGETS[target][0], *words, BUILD_WORKING_DIRECTORY=str(folder)
    )
    assert code == 0, stderr
    for flag in words:
        if found := re.match(
            r"--(report|csv|json|page|sheet|plot|output)=(.+)", flag
        ):
            assert (folder / found[2]).stat().st_size > 0


def test_targets_are_there():
    labels = [
        (place, label)
        for place, (program, *words) in all_commands()
        if program in _BAZEL and words[0] in ("build", "run", "test")
        for label in words[1 : words.index("--") if "--" in words else None]
        if not label.startswith("--")
    ]
    assert len(labels) > 50
    for place, label in labels:
        package, _, name = label.removeprefix("//").partition(":")
        if package.endswith("..."):
            assert pathlib.Path(package.removesuffix("...")).is_dir(), place
            continue
        build = pathlib.Path(package, "BUILD")
        name = name or build.parent.name
        assert f'"{name}"' in build.read_text(), (place, label)


def test_scripts_are_there():
    scripts = [
        (place, words[0])
        for place, (program, *words) in all_commands()
        if program == "python3"
    ]
    assert scripts
    for place, script in scripts:
        # Or a folder that Python runs.
        path = pathlib.Path(script)
        assert path.is_file() or (path / "__main__.py").is_file(), place


def test_every_line_of_a_console_is_a_command():
    for page in pages.all_pages():
        for block in pages.blocks(page):
            found = command_lines.commands(block)
            if block.language == "console":
                lines = block.text.replace("\\\n", " ").splitlines()
                assert len(found) == len(lines), block.place
            elif block.language in ("bash", "indented"):
                assert found, block.place


def test_files_in_sentences_are_there():
    files = [
        (page, code)
        for page in pages.all_pages()
        for code in pages.inline_code(page)
        if re.match(
            r"(cuda_kernels|eval|san|tests|third_party|tools|train)/[\w./]+$",
            code,
        )
        if "NAME" not in code
    ]
    assert len(files) > 20
    for page, file in files:
        assert pathlib.Path(file).exists(), (page, file)
