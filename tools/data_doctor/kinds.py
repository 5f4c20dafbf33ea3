"""What can be the matter with a file or a folder of images."""

from typing import NamedTuple


class Kind(NamedTuple):
    """One thing that can be the matter.

    Attributes:
      title: of its row in the table.
      is_problem: False for what training does well with.
      left_out_of: splits whose images of this kind are excluded. Of the
        validation images only those that cannot be decoded, so that figures
        stay comparable with those of others.
    """

    title: str
    is_problem: bool = True
    left_out_of: tuple[str, ...] = ()


_BOTH, _TRAIN = ("train", "val"), ("train",)

KINDS = {
    "class_folder": Kind("class folder that training refuses"),
    "no_file": Kind("no file: folder, pipe, socket, device", True, _BOTH),
    "dead_link": Kind("link that leads nowhere", True, _BOTH),
    "unreadable": Kind("file that cannot be opened or read", True, _BOTH),
    "empty": Kind("empty file", True, _BOTH),
    "no_image": Kind("no JPEG, PNG, BMP or WebP image", True, _BOTH),
    "unsupported": Kind("image that is not decoded", True, _BOTH),
    "cut_off": Kind("file cut off", True, _BOTH),
    "undecodable": Kind("damaged, cannot be decoded", True, _BOTH),
    "half_grey": Kind("image that ends early, grey from there", True, _TRAIN),
    "damaged": Kind("JPEG decoded with a warning", True, _TRAIN),
    "in_both_splits": Kind("training image that is in val, too", True, _TRAIN),
    "in_two_classes": Kind("image in more than one class", True, _TRAIN),
    "duplicate": Kind("image that is there more than once", True, _TRAIN),
    "near_duplicate": Kind("image much like another", False),
    "odd_class_name": Kind("class name with blanks or like another", False),
    "wrong_extension": Kind("extension of another format", False),
    "cmyk": Kind("CMYK colours", False),
    "exif_turned": Kind("turned by EXIF, which training ignores", False),
    "sixteen_bit": Kind("16 bits, taken as 8", False),
    "tiny": Kind("tiny: a side below 32 pixels", False),
    "huge": Kind("huge: above 50 million pixels", False),
    "clutter": Kind("left behind by a system, passed over", False),
}

TINY_SIDE = 32
HUGE_PIXELS = 50_000_000


class Finding(NamedTuple):
    """One thing that is the matter.

    Attributes:
      kind: a key of KINDS.
      path: of the file or folder, relative to the data folder.
      detail: what exactly, such as "is empty".
      excluded: whether it goes to the exclusion list.
    """

    kind: str
    path: str
    detail: str
    excluded: bool

    @property
    def split(self) -> str:
        """Where it is: train, val or, for both, an empty text."""
        first = self.path.partition("/")[0]
        return first if first in _BOTH else ""

    @property
    def is_problem(self) -> bool:
        """Whether training should not begin like this."""
        return KINDS[self.kind].is_problem


def finding(kind: str, path: str, detail: str) -> Finding:
    """A finding, excluded if its kind is.

    Args:
      kind: a key of KINDS.
      path: relative to the data folder.
      detail: what exactly.
    """
    split = path.partition("/")[0]
    return Finding(kind, path, detail, split in KINDS[kind].left_out_of)
