"""What the commands of eval make of their flags."""

import dataclasses
import pathlib
from collections.abc import Sequence

from san.jobs import config


@dataclasses.dataclass(frozen=True)
class Selected:
    """A checkpoint that the command line names.

    Attributes:
      path: the file.
      workdir: the work folder it lies in, if it was named by that.
    """

    path: pathlib.Path
    workdir: pathlib.Path | None = None

    @property
    def label(self) -> str:
        """What people call it: the work folder's or the file's name."""
        return (self.workdir or self.path).name

    def configure(
        self, gin_files: Sequence[str], gin_params: Sequence[str]
    ) -> None:
        """Configures its network: config.gin of the work folder, then these."""
        own = [str(self.workdir / "config.gin")] if self.workdir else []
        config.parse([*own, *gin_files], gin_params)


def select(
    workdirs: Sequence[str], checkpoints: Sequence[str], which: str
) -> list[Selected]:
    """The checkpoints of work folders, or those that are named themselves.

    Args:
      workdirs: values of --workdir.
      checkpoints: values of --checkpoint.
      which: value of --which.

    Raises:
      ValueError: if both or neither are given, or a folder has no checkpoint.
    """
    if bool(workdirs) == bool(checkpoints):
        raise ValueError(
            "eval: exactly one of --workdir and --checkpoint must be given,"
            f" got {'both' if workdirs else 'neither'}; see --help"
        )
    if checkpoints:
        return [Selected(user_path(path)) for path in checkpoints]
    return [_of_work_folder(user_path(path), which) for path in workdirs]


def select_any(path: str, which: str) -> Selected:
    """The checkpoint that a path names: a file, or one of a work folder."""
    named = user_path(path)
    return _of_work_folder(named, which) if named.is_dir() else Selected(named)


def user_path(path: str) -> pathlib.Path:
    """A path as the user means it, who starts commands in his own folder."""
    return pathlib.Path(config.user_path(path))


def output_file(flag: str, path: str | None) -> pathlib.Path | None:
    """The file that a flag names, if any.

    Raises:
      ValueError: if no file can be written there.
    """
    if path is None:
        return None
    file = user_path(path)
    if file.is_dir() or not file.parent.is_dir():
        raise ValueError(
            f"eval: --{flag} must be a file in an existing folder, got {file}"
        )
    return file


def _of_work_folder(workdir: pathlib.Path, which: str) -> Selected:
    path = workdir / "checkpoints" / f"{which}.pth"
    if not path.exists():
        raise ValueError(
            "eval: --workdir must be a work folder in which //train:main has"
            f" trained an epoch, got {workdir} without {path.name}"
        )
    return Selected(path, workdir)
