"""The images of a run: those to train on and those to validate on.

A run that began when folders named by number were sorted as text, 0, 1, 10,
11, 2, goes on in that order of its classes. The order of the images follows
it, and with that whatever is drawn for them.
"""

import contextlib

from eval import class_order
from san import checkpoints, data
from train.work_folder import WorkFolder


def load(
    root: str, folder: WorkFolder, resume: bool
) -> tuple[data.ImageIndex, data.ImageIndex]:
    """Lists both splits of a data folder.

    Args:
      root: the data folder.
      folder: the work folder, which keeps the sizes of images.
      resume: take the classes in the order of its last checkpoint, if that is
        the one of their names as text; a line on stderr says so.

    Raises:
      DataError: as data.load_split.
    """
    training, validation = (
        data.load_split(
            root,
            split,
            cache_dir=str(folder.cache),
            exclude=data.Data().exclude,
        )
        for split in ("train", "val")
    )
    as_text = sorted(training.classes)
    if not resume or training.classes == as_text or _trained(folder) != as_text:
        return training, validation
    return (
        class_order.reordered(training, as_text, say=True),
        class_order.reordered(validation, as_text, say=False),
    )


def _trained(folder: WorkFolder) -> list[str] | None:
    """The classes of the latest checkpoint that can be read."""
    for path in (folder.last, *folder.others()):
        # Whoever resumes says what is the matter with a damaged one.
        with contextlib.suppress(ValueError, OSError):
            return checkpoints.read_checkpoint(path).get("classes")
    return None
