"""Test files under tools/gpu_check: what is run, named and counted."""

import pathlib
import re
import textwrap

import pytest

from tools.gpu_check import events, testing
from tools.gpu_check.errors import CheckError
from tools.gpu_check.place import Place
from tools.gpu_check.summary import FAILED, LEFT_OUT, PASSED

_ROOT = pathlib.Path.cwd()
_LIMITS = testing.Limits(file=60.0, test=6.0)


def check_file(place, text, limits=_LIMITS, **options):
    """What comes of a test file with this text."""
    folder = place.root / "tests"
    folder.mkdir(exist_ok=True)
    (folder / "some_test.py").write_text(textwrap.dedent(text))
    return testing.run_file("tests/some_test.py", place, limits, **options)


def test_tests_that_pass(place):
    step = check_file(place, "def test_one():\n    assert 1\n")
    assert (step.verdict, step.words) == (PASSED, "1 passed")
    assert step.details == ()


def test_a_failure_is_named_with_its_reason(place):
    step = check_file(
        place,
        """
        import pytest
        @pytest.fixture
        def broken():
            raise OSError("no such thing")
        def test_wrong():
            assert 1 == 2, "one is not two"
        def test_with_a_broken_fixture(broken):
            pass
        def test_right():
            pass
        @pytest.mark.skip("no time")
        def test_skipped():
            pass
        """,
    )
    assert step.verdict == FAILED
    assert step.words == "1 passed, 2 failed, 1 skipped"
    details = "\n".join(step.details)
    assert "failed: test_wrong: AssertionError: one is not two" in details
    assert "failed: test_with_a_broken_fixture: OSError: no such" in details
    assert "skipped: test_skipped" in details


def test_a_test_that_hangs_is_named_and_the_others_run(place):
    step = check_file(
        place,
        """
        import time
        def test_before():
            pass
        def test_hangs():
            time.sleep(1000)
        def test_after():
            pass
        """,
    )
    assert (step.verdict, step.words) == (FAILED, "2 passed, 1 failed")
    (line,) = [line for line in step.details if "test_hangs" in line]
    assert re.fullmatch(r"  failed: test_hangs: hung for [67] s", line)
    assert "in test_hangs" in (place.output / "tests_some_test.log").read_text()


def test_a_test_that_dies_is_named_and_the_others_run(place):
    step = check_file(
        place,
        """
        import os
        def test_dies():
            os.kill(os.getpid(), 11)
        def test_after():
            pass
        """,
    )
    assert step.words == "1 passed, 1 failed"
    assert step.details == ("  failed: test_dies: died of SIGSEGV",)


def test_after_a_lost_gpu_the_others_run_in_another_process(place):
    # Stands in for an illegal access, after which every call fails.
    step = check_file(
        place,
        """
        import os, pytest, torch
        def fail():
            raise RuntimeError("CUDA error: an illegal memory access")
        def test_illegal(monkeypatch):
            torch.cuda.is_initialized = lambda: True
            torch.cuda.synchronize = fail
            fail()
        def test_after():
            torch.cuda.synchronize() if torch.cuda.is_initialized() else None
        """,
    )
    assert step.words == "1 passed, 1 failed"
    reason = "test_illegal: CUDA error: an illegal memory access"
    assert f"  the GPU was lost: {reason}" in step.details


def test_a_file_that_keeps_dying_is_given_up(place):
    step = check_file(
        place,
        """
        import os, pytest
        @pytest.mark.parametrize("number", range(20))
        def test_dies(number):
            os._exit(5)
        """,
    )
    assert step.verdict == FAILED
    assert step.words == "0 passed, 6 failed, 14 not run"
    assert "  failed: test_dies[0]: exit code 5" in step.details


def test_the_time_of_a_file_is_kept(place):
    step = check_file(
        place,
        """
        import time, pytest
        @pytest.mark.parametrize("number", range(9))
        def test_slow(number):
            time.sleep(4)
        """,
        testing.Limits(file=9.0, test=8.0),
    )
    assert step.verdict == FAILED
    assert step.seconds < 20
    assert "not run" in step.words
    assert "  took longer than" in step.details[0]


def test_a_process_that_does_not_end_after_its_tests(place, monkeypatch):
    monkeypatch.setattr(testing, "_FAREWELL_SECONDS", 2.0)
    step = check_file(
        place,
        """
        import atexit, time
        atexit.register(time.sleep, 1000)
        def test_one():
            pass
        """,
    )
    assert (step.verdict, step.words) == (FAILED, "1 passed")
    assert step.details == ("  did not end after its tests",)


@pytest.mark.parametrize(
    "text", ["", "import torch.nothing\n", "x = 1 / 0\n", "def test_a(:\n"]
)
def test_a_file_without_tests_has_failed(place, text):
    assert check_file(place, text).verdict == FAILED


def test_a_missing_package_is_named_and_can_be_done_without(place):
    text = "import no_such_package\ndef test_one():\n    pass\n"
    step = check_file(place, text)
    assert step.verdict == FAILED
    assert "it needs no_such_package, which is not here" in step.words
    assert "--without=no_such_package" in step.details[0]
    content = Place(
        place.root, place.build, place.output, without=["no_such_package"]
    )
    assert check_file(content, text).verdict == LEFT_OUT
    text = "import pytest.nothing\ndef test_one():\n    pass\n"
    step = check_file(place, text)  # A name that is wrong, no package.
    assert (step.verdict, step.words) == (FAILED, "0 passed")
    assert "No module named 'pytest.nothing'" in str(step.details)


def test_what_an_earlier_call_recorded_does_not_count(place):
    for _ in range(2):
        step = check_file(place, "def test_one():\n    assert 1\n")
        assert step.words == "1 passed"


def test_a_record_that_was_cut_off_is_read(tmp_path):
    path = tmp_path / "record"
    events.write(path, started="a")
    with path.open("a") as file:
        file.write('{"ended": "a", "outc')
    assert events.read(path) == [{"started": "a"}]
    assert events.read(tmp_path / "none") == []


def test_the_likeliest_to_fail_come_first():
    files = testing.files(_ROOT, "", "cuda")
    names = [pathlib.Path(f).name.removesuffix("_test.py") for f in files]
    assert tuple(names) == testing._CUDA_ORDER
    present = pathlib.Path("tests/cuda").glob("*_test.py")
    assert set(files) == set(map(str, present))


def test_files_are_named_one_by_one_or_by_folder():
    files = testing.files(_ROOT, "", "cpu")
    assert "tests/kernels/aggregation_test.py" in files
    one = "tests/kernels/errors_test.py"
    assert testing.files(_ROOT, f"{one},tests/cuda", "cpu")[-1] == one
    for wrong in ("tests/nothing", "san", f"{one},", "tests/cuda/BUILD/x"):
        with pytest.raises(CheckError, match="--tests must name files or"):
            testing.files(_ROOT, wrong, "cuda")
