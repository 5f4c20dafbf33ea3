"""That every process sees one work folder, and not each machine its own.

Otherwise each machine would go on from other checkpoints, or from none, and
they would train different networks side by side.
"""

import os
import pathlib
import secrets
import time

from san.jobs import files, processes

# A network file system may take a while to show what another machine wrote.
_SECONDS = 10.0


def check(folder: pathlib.Path, process: processes.Process) -> None:
    """Compares the folders of all processes.

    Args:
      folder: the work folder, which process 0 owns.
      process: this process.

    Raises:
      ValueError: on all of them, if one does not see what process 0 writes.
    """
    if process.world_size == 1:
        return
    name = processes.on_first_process(lambda: _leave_token(folder))
    blind = processes.largest(0 if _sees(folder, name) else 1 + process.rank)
    if process.is_first:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise ValueError(
            "train: --workdir must be one folder that all processes see, got"
            f" {folder}, in which process {blind - 1} does not find what"
            " process 0 has written; give the same folder to all, on a file"
            " system that the machines share"
        )


def _leave_token(folder: pathlib.Path) -> str:
    name = files.temporary_name(f"token_{secrets.token_hex(8)}")
    (folder / name).touch()
    return name


def _sees(folder: pathlib.Path, name: str) -> bool:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            if name in os.listdir(folder):
                return True
        except OSError:
            pass  # Not there either.
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
