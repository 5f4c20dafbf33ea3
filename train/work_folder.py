"""The work folder: one training run's files, owned by one run at a time.

    config.gin              every binding of the run, written at its start
    operative.gin           every value that was used, written at its end
    checkpoints/last.pth    where training stands
    checkpoints/last-1.pth  the checkpoint before it; -2, ... before that
    checkpoints/epoch.pth   the end of the last completed epoch
    checkpoints/best.pth    the best validation so far
    metrics.jsonl           every figure, a JSON object in each line
    tensorboard/            curves of them
    examples.png            images as the network saw them at the last start
    footprints.png          what it attends to, on average, every few epochs
    cache/                  image sizes, so that files are looked at once
    digits_*/               the images of a config that brings its own
    .lock                   held by the run that owns the folder

What a checkpoint holds is train/checkpointing.py's affair, which of them
training goes on from train/resuming.py's.
"""

import contextlib
import fcntl
import io
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import torch

from san import checkpoints, digest
from san.jobs import files


class WorkFolder:
    """Where the files of a run lie.

    Attributes:
      path: the folder.
      config: every binding, from the start of the run.
      operative: every value that was used, from its end.
      last: the checkpoint that training goes on from.
      epoch: the checkpoint of the last completed epoch.
      best: the checkpoint with the best validation.
      metrics: the file of all figures.
      tensorboard: the folder of the curves.
      examples: the picture of what the network sees.
      footprints: the picture of what it attends to.
      scratch: where what can be made again is made: the folder itself, or
        one that goes away.
      cache: the folder of the input's file lists, in there.
    """

    def __init__(self, path: pathlib.Path):
        self.path = self.scratch = path
        self.config = path / "config.gin"
        self.operative = path / "operative.gin"
        self.last = path / "checkpoints" / "last.pth"
        self.epoch = path / "checkpoints" / "epoch.pth"
        self.best = path / "checkpoints" / "best.pth"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.examples = path / "examples.png"
        self.footprints = path / "footprints.png"
        self.cache = path / "cache"

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Makes the folder and keeps other runs out of it; see owned_folder."""
        with owned_folder(self.path):
            self.last.parent.mkdir(exist_ok=True)
            for folder in (self.path, self.last.parent, self.cache):
                files.remove_temporaries(folder)
            yield

    @property
    def is_rehearsal(self) -> bool:
        """Whether nothing may be written to it."""
        return self.scratch != self.path

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """The folder is only read, if it is there at all."""
        cache = self.cache
        with tempfile.TemporaryDirectory(prefix="dry_run_") as scratch:
            self.scratch = pathlib.Path(scratch)
            self.cache = self.scratch / "cache"
            if cache.is_dir():
                shutil.copytree(cache, self.cache)
            yield
        self.scratch, self.cache = self.path, cache

    def others(self) -> list[pathlib.Path]:
        """The checkpoints that there are beside last.pth."""
        earlier = [path for _, path in sorted(self._earlier().items())]
        ends = [path for path in (self.epoch, self.best) if path.exists()]
        return [*earlier, *ends]

    def forget(self) -> None:
        """Removes the checkpoints of an earlier run."""
        damaged = self.last.parent.glob("last.damaged*.pth")
        # Killed on the way, it has not begun to start again.
        for path in [*self.others(), *damaged, self.last]:
            path.unlink(missing_ok=True)

    def save(
        self,
        checkpoint: dict[str, Any],
        *,
        keep: int,
        is_best: bool = False,
        ends_epoch: bool = False,
    ) -> None:
        """Writes last.pth, and best.pth first where this is the best.

        In that order a run killed between the two repeats what led to the
        best; in the other it would lose it. No older checkpoint goes before
        the new one is safe, and there is a whole last.pth at every moment.

        Args:
          checkpoint: what to write.
          keep: the latest checkpoints to keep, this one among them.
          is_best: write best.pth as well, bytes of its own.
          ends_epoch: it is epoch.pth as well, the same bytes.

        Raises:
          OSError: if a file cannot be written; the old ones are there.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        digest.sign(buffer)
        content = buffer.getbuffer()
        if is_best:
            files.write_atomically(self.best, content)
        with files.written(self.last, content) as new:
            if ends_epoch:
                files.link(new, self.epoch)
            self._age(keep)
        for number, path in self._earlier().items():
            if number >= keep:
                path.unlink()

    def _age(self, keep: int) -> None:
        """Makes last.pth the one before it as well, and so on."""
        for number, path in sorted(self._earlier().items(), reverse=True):
            if number + 1 < keep:
                path.replace(self._earlier_name(number + 1))
        if keep > 1 and self.last.exists():
            files.link(self.last, self._earlier_name(1))

    def _earlier_name(self, number: int) -> pathlib.Path:
        return self.last.with_name(f"last-{number}.pth")

    def _earlier(self) -> dict[int, pathlib.Path]:
        """The checkpoints before last.pth, by how many they came before it."""
        found = {
            path: re.fullmatch(r"last-([1-9]\d*)", path.stem)
            for path in self.last.parent.glob("last-*.pth")
        }
        return {int(name[1]): path for path, name in found.items() if name}

    def load(self) -> dict[str, Any] | None:
        """Reads last.pth; None where there is none.

        Raises:
          ValueError: if it cannot be read.
        """
        if not self.last.exists():
            return None
        return checkpoints.read_checkpoint(self.last)

    def replace_last(self, path: pathlib.Path) -> pathlib.Path | None:
        """Puts another checkpoint in the place of last.pth.

        Args:
          path: the other one, which stays.

        Returns:
          The name under which the old last.pth is kept, if there was one.

        Raises:
          OSError: if it cannot be written.
        """
        kept = None
        # Bytes of its own: people copy other files over last.pth.
        with files.written(self.last, path.read_bytes()):
            if self.last.exists():
                kept = self.last.rename(self._unused_name())
        return kept

    def _unused_name(self) -> pathlib.Path:
        """A name for a damaged file."""
        for number in itertools.count(1):
            end = "" if number == 1 else f"-{number}"
            path = self.last.with_name(f"last.damaged{end}.pth")
            if not path.exists():
                break
        return path


@contextlib.contextmanager
def owned_folder(path: pathlib.Path) -> Iterator[None]:
    """Makes a folder and keeps other processes out of it.

    The lock is the kernel's: it goes when the process does, however the
    process ends.

    Raises:
      ValueError: if another run owns the folder.
      OSError: if the folder cannot be made or written to, or files in it not be
        replaced.
    """
    with _open_lock(path) as lock:
        _lock(lock, path)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        files.check_replacing(path)
        yield


def _open_lock(path: pathlib.Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return open(path / ".lock", "a+")
    except OSError as error:
        raise OSError(
            "train: --workdir must be a folder that can be written to,"
            f" got {path} ({error.strerror})"
        ) from error


def _lock(lock: IO[str], path: pathlib.Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise ValueError(
            "train: --workdir must not be in use by another run, got"
            f" {path}, where process {lock.read().strip()} trains"
        ) from None
    except OSError as error:
        if not files.is_missing_call(error):
            raise
        print(
            f"warning: the file system of {path} has no locks"
            f" ({error.strerror}); see to it that no other run uses this"
            " folder",
            file=sys.stderr,
        )
