"""What the commands of eval make of their flags."""

import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from eval import loading
from san import checkpoints
from san.jobs import config

# Flags whose files end as they are called.
_TEXTS = ("json", "csv")

# Of a binding: Data.image_size, scope/SAN.widths.
_NAME = re.compile(r"(\w+/)*\w+(\.\w+)+")


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
        """Configures its network: as it was trained, then as these say."""
        if self.workdir is None:
            if not gin_files:
                gin_params = [*self._configuration(), *gin_params]
            config.parse(gin_files, gin_params)
            return
        own = str(self.workdir / "config.gin")
        config.parse([own])
        changed = self._changed_since()
        late = [name for name, old in changed.items() if old is None]
        with tempfile.TemporaryDirectory() as folder:
            since = pathlib.Path(folder) / "checkpoint.gin"
            since.write_text(
                "".join(
                    f"{name} = {old}\n"
                    for name, old in changed.items()
                    if old is not None
                )
            )
            config.parse([own, str(since), *gin_files], gin_params, late)

    def _configuration(self) -> list[str]:
        """The bindings that a file says its network has.

        One that travels may come from anybody. No binding of it is more than
        one line: an `import` would run what it names.

        Raises:
          ValueError: if they are something else.
        """
        told: Any = {}
        with contextlib.suppress(ValueError, OSError):  # Its loader says why.
            told = checkpoints.read_checkpoint(self.path).get("configuration")
        if not isinstance(told, dict):
            return []
        for name, value in told.items():
            if not _NAME.fullmatch(name) or not _is_one_line(value):
                raise ValueError(
                    "eval: the checkpoint's configuration must be bindings of"
                    f" one line, got {name!r} = {value!r} in {self.path}"
                )
        return [f"{name} = {value}" for name, value in told.items()]

    def _changed_since(self) -> dict[str, str | None]:
        """What config.gin, of the last run there, binds otherwise, as it was.

        None for what was not bound.

        That run may have gone on with other data settings, and may have left
        the best checkpoint as it was.
        """
        settings = config.bindings()
        with contextlib.suppress(ValueError):  # Whoever loads it says why.
            settings = loading.trained_settings(
                checkpoints.read_checkpoint(self.path)
            )
        return {
            name: None if old == config.NOT_BOUND else old
            for name, (old, _) in config.changed_bindings(settings).items()
        }


def select(
    workdirs: Sequence[str], checkpoints: Sequence[str], which: str
) -> list[Selected]:
    """The checkpoints of work folders, or those that are named themselves.

    Args:
      workdirs: values of --workdir.
      checkpoints: values of --checkpoint.
      which: value of --which.

    Raises:
      ValueError: if both or neither are given, a folder has no checkpoint, or
        there is none for `which` to choose from.
    """
    if bool(workdirs) == bool(checkpoints):
        raise ValueError(
            "eval: exactly one of --workdir and --checkpoint must be given,"
            f" got {'both' if workdirs else 'neither'}; see --help"
        )
    if checkpoints and which != "best":
        raise ValueError(
            "eval: --which must come with --workdir, of whose checkpoints it"
            f" chooses one, got --which={which} beside --checkpoint"
        )
    if checkpoints:
        return [Selected(user_path(path)) for path in checkpoints]
    return [_of_work_folder(user_path(path), which) for path in workdirs]


def selected(
    workdir: str | None, checkpoint: str | None, which: str
) -> Selected:
    """The one checkpoint of a command that takes one; see select."""
    (one,) = select(_given(workdir), _given(checkpoint), which)
    return one


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
      ValueError: if no file can be written there, or one of another kind
        would be written over, as where a flag's value was forgotten.
    """
    if path is None:
        return None
    if path.startswith("--"):
        raise ValueError(f"eval: --{flag} must be a file, got {path}, a flag")
    file = user_path(path)
    if flag in _TEXTS and file.is_file() and file.suffix != f".{flag}":
        raise ValueError(
            f"eval: --{flag} must not be another kind of file that is there,"
            f" got {file}"
        )
    if file.is_dir() or not file.parent.is_dir():
        raise ValueError(
            f"eval: --{flag} must be a file in an existing folder, got {file}"
        )
    return file


def output_files(
    paths: Mapping[str, str | None],
) -> dict[str, pathlib.Path | None]:
    """The files that some flags name, each another one; see output_file.

    Args:
      paths: by the names of the flags.

    Raises:
      ValueError: if one would be written over another.
    """
    files = {flag: output_file(flag, path) for flag, path in paths.items()}
    flags: dict[str, str] = {}
    for flag, file in files.items():
        if file is None:
            continue
        other = flags.setdefault(os.path.realpath(file), flag)
        if other != flag:
            raise ValueError(
                f"eval: --{other} and --{flag} must be different files, got"
                f" {file} for both"
            )
    return files


def _is_one_line(value: Any) -> bool:
    return isinstance(value, str) and len(value.splitlines()) == 1


def _given(path: str | None) -> list[str]:
    return [path] if path else []


def _of_work_folder(workdir: pathlib.Path, which: str) -> Selected:
    path = workdir / "checkpoints" / f"{which}.pth"
    if not path.exists():
        raise ValueError(
            "eval: --workdir must be a work folder in which //train:main has"
            f" trained an epoch, got {workdir} without {path.name}"
        )
    return Selected(path, workdir)
