import pytest

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
