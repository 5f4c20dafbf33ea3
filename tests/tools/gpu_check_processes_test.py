"""Processes of tools/gpu_check that hang, die and leave others behind."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

from tools.gpu_check import processes


def run(place, program, seconds=60.0, **options):
    """A Python program as a process; its end and what it wrote."""
    log = place.output / "log"
    command = [*place.python, "-c", textwrap.dedent(program)]
    environment = place.environment
    ended = processes.run(
        command, log, seconds, environment, place.root, **options
    )
    return ended, log.read_text()


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_ends_has_its_words(place):
    ended, log = run(place, "print('said'); raise SystemExit(3)")
    assert (ended.code, ended.words, log) == (3, "exit code 3", "said\n")
    ended, _ = run(place, "import os; os.kill(os.getpid(), 11)")
    assert ended.words == "died of SIGSEGV"


def test_a_process_that_hangs_says_where_and_ends_with_its_children(place):
    ended, log = run(
        place,
        """
        import subprocess, time
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid, flush=True)
        def hangs():
            time.sleep(1000)
        hangs()
        """,
        seconds=3.0,
    )
    assert ended.words == "took longer than 3 s"
    assert "in hangs" in log
    wait_until(lambda: not is_running(int(log.split()[0])))


def test_what_does_not_heed_sigabrt_is_killed(place):
    ended, _ = run(
        place,
        """
        import faulthandler, signal, time
        faulthandler.disable()
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(1000)
        """,
        seconds=1.0,
    )
    assert ended.code == -signal.SIGKILL


def test_what_a_process_leaves_behind_is_ended(place):
    ended, log = run(
        place,
        """
        import subprocess
        print(subprocess.Popen(["sleep", "1000"]).pid)
        """,
    )
    assert ended.code == 0
    wait_until(lambda: not is_running(int(log)))


def test_what_kills_the_check_ends_its_processes(place):
    program = """
        import pathlib, sys
        from tools.gpu_check import processes
        from tools.gpu_check.place import Place
        root = pathlib.Path(sys.argv[1])
        place = Place(root, root, root)
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(1e3)"
        command = [sys.executable, "-c", code]
        processes.run(command, root / "log", 1e3, place.environment, root)
    """
    program = textwrap.dedent(program)
    command = [sys.executable, "-c", program, str(place.root)]
    check = subprocess.Popen(command, env=place.environment)
    log = place.root / "log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    child = int(log.read_text())
    assert is_running(child)
    check.kill()
    check.wait()
    wait_until(lambda: not is_running(child))


def test_commands_side_by_side_end_with_the_first_failure(place):
    start = time.monotonic()
    commands = [["sleep", "1000"], ["false"]] + 20 * [["sleep", "1000"]]
    if len(os.sched_getaffinity(0)) == 1:
        commands.reverse()
        commands[0] = ["false"]
    ended = processes.run_all(
        commands, place.output / "log", 60.0, os.environ, place.root
    )
    assert ended.code == 1
    assert time.monotonic() - start < 30
