"""The evaluation job as a user starts it."""

import pytest

from tests.train import jobs


def test_help_is_worth_reading():
    code, stdout, _ = jobs.run("eval.imagenet", "--help")
    assert code in (0, 1)  # absl's own choice.
    for part in (
        "--workdir=runs/san10_pair-digits",
        "--checkpoint=model_best.pth",
        "--json",
        "--data_dir",
        "--which",
        "per_class",
        "Exit codes",
    ):
        assert part in stdout


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["exactly one of --workdir and --checkpoint", "got neither"]),
        (
            ["--workdir=runs/none"],
            ["must be a work folder", "runs/none without best.pth"],
        ),
        (
            ["--checkpoint=none.pth", "--gin_file=san10_pair.gin"],
            ["must be a checkpoint file", "none.pth"],
        ),
        (
            ["--checkpoint=some.pth", "--which=last"],
            ["--which must come with --workdir", "got --which=last beside"],
        ),
        (
            ["--checkpoint=some.pth", "--json=a", "--csv=./b/../a"],
            ["--json and --csv must be different files, got ", "a for both"],
        ),
    ],
)
def test_mistakes_are_one_clear_message(tmp_path, arguments, messages):
    (tmp_path / "b").mkdir()
    code, stdout, stderr = jobs.run(
        "eval.imagenet", *arguments, BUILD_WORKING_DIRECTORY=str(tmp_path)
    )
    assert code in (1, 2)
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1
    for message in messages:
        assert message in stderr
    assert not stdout


@pytest.mark.parametrize("flag", ["data_dir", "class_map", "json", "workdir"])
def test_an_empty_name_is_no_missing_flag(flag):
    """As of a shell's variable that is not set."""
    code, stdout, stderr = jobs.run("eval.imagenet", f"--{flag}=")
    assert code == 1 and not stdout
    assert f"--{flag} must name a file or a folder, got an empty" in stderr
    assert "Traceback" not in stderr
