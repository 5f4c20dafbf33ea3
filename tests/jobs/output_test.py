import os
import sys

import pytest

from san.jobs import output


@pytest.fixture
def broken(monkeypatch):
    """A stream of which nobody reads the other end."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    yield stream
    with pytest.raises(BrokenPipeError):
        stream.write("x")
        stream.close()


def test_nobody_reads(broken, monkeypatch):
    monkeypatch.setattr(sys, "stdout", broken)
    monkeypatch.setattr(sys, "stderr", broken)
    output.outlive_readers()
    for stream in (sys.stdout, sys.stderr):
        print("a line", file=stream, flush=True)
        assert stream.fileno() == broken.fileno()
        assert not stream.isatty()


def test_what_can_be_written_is(tmp_path, monkeypatch):
    with open(tmp_path / "log", "w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        monkeypatch.setattr(sys, "stderr", log)
        output.outlive_readers()
        print("one")
        print("two \udcff", file=sys.stderr)
    assert (tmp_path / "log").read_text() == "one\ntwo \\udcff\n"


def test_a_stream_that_is_closed_becomes_one_that_takes_all(
    tmp_path, monkeypatch
):
    with open(tmp_path / "log", "w") as log:
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", log)
        output.outlive_readers()
        print("a line", flush=True)
