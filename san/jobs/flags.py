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
class ConfigFlags:
    """What configures a command; each has its `value` once absl has read it.

    Attributes:
      gin_file: configuration files, in their order.
      gin_param: single settings, which come after the files.
      workdir: the work folder, or None; a list where there may be several.
    """

    gin_file: flags.FlagHolder[list[str]]
    gin_param: flags.FlagHolder[list[str]]
    workdir: flags.FlagHolder[Any]


@dataclasses.dataclass(frozen=True)
class Flags(ConfigFlags):
    """The same of a command that reads a folder of images.

    Attributes:
      data_dir: the folder of images, or None.
      batch_size: images at a time over all processes together, or None.
    """

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
    config = define_config(example=example, workdir=workdir, several=several)
    return Flags(
        **vars(config),
        data_dir=define_path("data_dir", data_dir),
        batch_size=flags.DEFINE_integer(
            "batch_size", None, batch_size, lower_bound=least_batch
        ),
    )


def define_config(
    *, example: str, workdir: str, several: bool = False
) -> ConfigFlags:
    """Defines the flags that configure the calling command.

    Args:
      example: a setting, such as "Recipe.epochs=50", for --gin_param's help.
      workdir: the help of --workdir.
      several: whether --workdir is repeatable.
    """
    return ConfigFlags(
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
        workdir=define_path("workdir", workdir, several=several),
    )


@dataclasses.dataclass(frozen=True)
class CheckpointFlags:
    """The flags of a command that takes trained networks.

    Attributes:
      which: the checkpoint of a work folder, "best" or "last".
      checkpoint: a checkpoint file, or None; a list where there may be several.
    """

    which: flags.FlagHolder[str]
    checkpoint: flags.FlagHolder[Any]


def define_checkpoint(*, several: bool = False) -> CheckpointFlags:
    """Defines the flags that name trained networks for the calling command.

    Args:
      several: whether --checkpoint is repeatable.
    """
    return CheckpointFlags(
        which=flags.DEFINE_enum(
            "which", "best", ["best", "last"], "Which checkpoint of --workdir."
        ),
        checkpoint=define_path(
            "checkpoint",
            "Checkpoint to take, a published one or one of //train:main;"
            " the gin files name its network.",
            several=several,
        ),
    )


def define_json(
    text: str = "File to write the figures to.",
) -> flags.FlagHolder[str | None]:
    """Defines --json for the calling command.

    Args:
      text: its help.
    """
    return define_path("json", text)


def define_path(
    name: str, text: str, *, several: bool = False
) -> flags.FlagHolder[Any]:
    """Defines a flag that names a file or a folder.

    An empty one, as of a shell's variable that is not set, is refused: it would
    be as if the flag had not been given.

    Args:
      name: of the flag.
      text: its help.
      several: whether it is repeatable.
    """
    flag: flags.FlagHolder[Any]
    if several:
        flag = flags.DEFINE_multi_string(name, [], text)
    else:
        flag = flags.DEFINE_string(name, None, text)
    flags.register_validator(
        flag,
        lambda value: value != "" and "" not in (value if several else ()),
        message=f"--{name} must name a file or a folder, got an empty text",
    )
    return flag
