"""Looks at all files of a data folder, in several processes."""

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from san.data.listing import File
from san.data.progress import Progress
from tools.data_doctor.checkup import Checkup, Examiner

_CHUNK = 16  # Files that a process takes at once.

_WORTH_A_PROCESS = 1000  # Files that take as long as it takes to start.

_examiner: Examiner | None = None  # Of this process of the pool.


def examine(
    root: str, files: Sequence[File], *, num_processes: int, near: bool
) -> list[Checkup]:
    """Looks at files and shows how far it is.

    Args:
      root: the data folder.
      files: in the data folder.
      num_processes: how many may look; fewer do at few files.
      near: whether to look for images that are alike.

    Returns:
      One for each file, in their order.

    Raises:
      OSError: a process was killed.
    """
    chunks = [
        files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)
    ]
    num_processes = min(num_processes, -(-len(files) // _WORTH_A_PROCESS))
    results = (
        _in_processes(root, chunks, num_processes, near)
        if num_processes > 1
        else _here(root, chunks, near)
    )
    checkups = []
    with Progress("decoding the images", len(files)) as progress:
        for found in results:
            checkups += found
            progress.advance(len(found))
    return checkups


def _here(
    root: str, chunks: Sequence[Sequence[File]], near: bool
) -> Iterator[list[Checkup]]:
    examiner = Examiner(root, near=near)
    for chunk in chunks:
        yield [examiner.look_at(file) for file in chunk]


def _in_processes(
    root: str,
    chunks: Sequence[Sequence[File]],
    num_processes: int,
    near: bool,
) -> Iterator[list[Checkup]]:
    # Not forked: the pipeline of this process may have threads.
    pool = concurrent.futures.ProcessPoolExecutor(
        num_processes,
        multiprocessing.get_context("spawn"),
        _prepare,
        (root, near),
    )
    try:
        yield from pool.map(_look_at, chunks)
    except BrokenProcessPool as error:
        raise OSError(
            "data_doctor: the processes must be left to end, got one that was"
            " killed, by a decoder's crash or for want of memory;"
            " --num_processes=1 takes less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(root: str, near: bool) -> None:
    global _examiner
    # Ctrl-C reaches all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _examiner = Examiner(root, near=near)


def _look_at(chunk: Sequence[File]) -> list[Checkup]:
    assert _examiner is not None
    return [_examiner.look_at(file) for file in chunk]
