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
    ],
)
def test_mistakes_are_one_clear_message(tmp_path, arguments, messages):
    code, stdout, stderr = jobs.run(
        "eval.imagenet", *arguments, BUILD_WORKING_DIRECTORY=str(tmp_path)
    )
    assert code in (1, 2)
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1
    for message in messages:
        assert message in stderr
    assert not stdout
