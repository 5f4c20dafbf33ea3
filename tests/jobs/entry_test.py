import subprocess
import sys

import numpy as np
import pytest
import torch

from san import create_model
from san.jobs import config, entry


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("name must be x, got y"), 2),
        (OSError("name must be x, got y"), 1),
        (FloatingPointError("name must be x, got y"), 1),
    ],
)
def test_mistakes_are_one_line(capsys, error, code):
    assert entry.run(lambda: fail(error)) == code
    output = capsys.readouterr()
    assert output.err == "error: name must be x, got y\n"
    assert not output.out


def test_success_prints_nothing(capsys):
    assert entry.run(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_second_interrupt_ends_without_a_traceback(capsys):
    assert entry.run(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_our_own_faults_have_a_traceback():
    for error in (TypeError("ours"), RuntimeError("ours")):
        with pytest.raises(type(error), match="ours"):
            entry.run(lambda error=error: fail(error))


def test_memory_that_is_not_enough_is_one_line(capsys):
    for job in (
        lambda: torch.empty(2**55),
        lambda: np.empty(2**55),
        lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to")),
    ):
        assert entry.run(job) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: memory must be enough, got ")
        assert "smaller batch" in said and said.count("\n") == 1


PRINTS = """
import sys
from san.jobs import entry
def job():
    for number in range(100_000):
        print(number, flush=True)
entry.leave(entry.run(job))
"""


def test_who_reads_only_the_first_lines_sees_no_error():
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_what_gin_adds_is_left_out(capsys):
    config.parse([], ["create_model.name = 'none'"])
    assert entry.run(create_model) == 2
    assert "In call to" not in capsys.readouterr().err


def test_a_missing_binding_is_explained(capsys):
    config.parse([])
    assert entry.run(create_model) == 2
    error = capsys.readouterr().err
    assert "create_model" in error and "--gin_file" in error
    assert len(error.splitlines()) == 1


def test_only_flags_are_arguments():
    entry.check_no_arguments([])
    with pytest.raises(ValueError, match=r"must be a flag .*got 'a b'"):
        entry.check_no_arguments(["a", "b"])
