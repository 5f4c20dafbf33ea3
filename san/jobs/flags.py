"""The command line flags that several commands have in common.

One place for their names, defaults and rules; what a flag means to a command
is a sentence that the command adds. Its other flags a command defines itself.
"""

import dataclasses
from typing import Any

from absl import flags

# --help lists a flag under the command that asks for it, not under this file.
flags.disclaim_key_flags()


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of a command; each has its `value` once absl has read them.

    Attributes:
      gin_file: configuration files, in their order.
      gin_param: single settings, which come after the files.
      workdir: the work folder, or None; a list where there may be several.
      data_dir: the folder of images, or None.
      batch_size: images at a time over all processes together, or None.
    """

    gin_file: flags.FlagHolder[list[str]]
    gin_param: flags.FlagHolder[list[str]]
    workdir: flags.FlagHolder[Any]
    data_dir: flags.FlagHolder[str | None]
    batch_size: flags.FlagHolder[int | None]


def define(
    *,
    example: str,
    workdir: str,
    data_dir: str,
    batch_size: str,
    least_batch: int | None = None,
    several: bool = False,
) -> Flags:
    """Defines the flags for the calling command.

    Args:
      example: a setting, such as "Recipe.epochs=50", for --gin_param's help.
      workdir: the help of --workdir.
      data_dir: the help of --data_dir.
      batch_size: the help of --batch_size.
      least_batch: the smallest --batch_size, where no setting checks it.
      several: whether --workdir is repeatable.
    """
    return Flags(
        gin_file=flags.DEFINE_multi_string(
            "gin_file",
            [],
            "Configuration file: a packaged one (such as san10_pair.gin) or"
            " your own. Repeatable; later files change earlier ones.",
        ),
        gin_param=flags.DEFINE_multi_string(
            "gin_param",
            [],
            f"A single setting, such as {example}. Repeatable; comes after the"
            " files.",
        ),
        workdir=_define_path("workdir", workdir, several),
        data_dir=flags.DEFINE_string("data_dir", None, data_dir),
        batch_size=flags.DEFINE_integer(
            "batch_size", None, batch_size, lower_bound=least_batch
        ),
    )


@dataclasses.dataclass(frozen=True)
class CheckpointFlags:
    """The flags of a command that takes trained networks.

    Attributes:
      which: the checkpoint of a work folder, "best" or "last".
      checkpoint: a checkpoint file, or None; a list where there may be several.
      json: file to write the figures to, or None.
    """

    which: flags.FlagHolder[str]
    checkpoint: flags.FlagHolder[Any]
    json: flags.FlagHolder[str | None]


def define_checkpoint(*, several: bool = False) -> CheckpointFlags:
    """Defines the flags that name trained networks for the calling command.

    Args:
      several: whether --checkpoint is repeatable.
    """
    return CheckpointFlags(
        which=flags.DEFINE_enum(
            "which", "best", ["best", "last"], "Which checkpoint of --workdir."
        ),
        checkpoint=_define_path(
            "checkpoint",
            "Checkpoint to evaluate, a published one or one of //train:main;"
            " the gin files name its network.",
            several,
        ),
        json=flags.DEFINE_string("json", None, "File to write the figures to."),
    )


def _define_path(name: str, text: str, several: bool) -> flags.FlagHolder[Any]:
    if several:
        return flags.DEFINE_multi_string(name, [], text)
    return flags.DEFINE_string(name, None, text)
