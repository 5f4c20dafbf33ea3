"""Where the images come from: the user's folder, or a config that has some."""

from collections.abc import Callable

from san import data

_NO_DATA = """\
train: --data_dir must name a folder of images, got none.

ImageNet, or images of your own, are laid out as
    DATA_DIR/train/n01440764/n01440764_10026.JPEG
    DATA_DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG
and trained on by
    bazel run //train:main -- --gin_file=san10_pair.gin --data_dir=DATA_DIR

To try the handwritten digits, which need no download:
    bazel run //train:main -- --gin_file=san10_pair.gin --gin_file=digits.gin"""


def source(data_dir: str | None) -> Callable[[str], str]:
    """What makes the data folder, given the work folder.

    Args:
      data_dir: the folder of images; None for a config that brings its own.

    Raises:
      ValueError: if there is neither.
    """
    if data_dir:
        return lambda work_folder: data_dir
    configured = data.Data().source
    if configured is None:
        raise ValueError(_NO_DATA)
    return configured
