"""What the rows of the paper's tables are made of, and their networks.

A row's name says what differs from SAN10, or from ResNet26, in one word.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import gin

from san.attention import (
    PairwiseAttention,
    PatchwiseAttention,
    ScalarAttention,
)
from san.attention.relations import PAIRWISE, PATCHWISE
from san.networks.resnet import WIDTHS as RESNET_WIDTHS
from san.networks.resnet import ResNet
from san.networks.san import SAN

SAN_BLOCKS = {
    "san10": (2, 1, 2, 4, 1),
    "san15": (3, 2, 3, 5, 2),
    "san19": (3, 3, 4, 6, 3),
}
RESNET_BLOCKS = {
    "resnet26": (1, 2, 4, 1),
    "resnet38": (2, 3, 5, 2),
    "resnet50": (3, 4, 6, 3),
}

ATTENTIONS: dict[str, Any] = {
    "pair": PairwiseAttention,
    "patch": PatchwiseAttention,
}
# Of which a row says everything, the relations' own arguments included.
STRUCTURE: tuple[Any, ...] = (
    SAN,
    ResNet,
    ScalarAttention,
    *ATTENTIONS.values(),
    *PAIRWISE.values(),
    *PATCHWISE.values(),
)

_WIDTHS = (64, 256, 512, 1024, 2048)
_FIRST_KERNEL_SIZE = 3  # Of stage 0, in every row: section 3.4.

# The standard blocks.
_CHOICES: dict[str, dict[str, Any]] = {
    "pair": {
        "relation": "subtraction",
        "num_layers": 2,
        "sharing": "distinct",
        "position": "relative",
    },
    "patch": {
        "relation": "concatenation",
        "num_layers": 2,
        "sharing": "distinct",
    },
    "sasa": {},
    "conv": {},
}
# What a table varies; 3 varies the size.
_VARIED = {
    "table4": "relation",
    "table5": "num_layers",
    "table6": "sharing",
    "table7": "kernel_size",
    "table8": "position",
}
_LAYERS = {"L": 1, "L-R-L": 2, "L-R-L-R-L": 3}


@gin.configurable(module="san")
@dataclasses.dataclass(frozen=True)
class RowSize:
    """How large the networks of tables 4 to 8 are; the default is the paper's.

    For small images and short runs: a smaller SAN10 and a smaller ResNet26,
    in which the rows differ as the paper's do.

    Attributes:
      num_blocks: bottlenecks in each stage of a SAN.
      widths: channels of each stage of a SAN.
      num_conv_blocks: bottlenecks in each of the four stages of a ResNet.
      conv_widths: channels inside the bottlenecks of each of them.

    Raises:
      ValueError: if a length is wrong, something is no positive integer (or
        0 blocks), or only the first stage has blocks, in which all rows have
        the same footprint.
    """

    num_blocks: Sequence[int] = SAN_BLOCKS["san10"]
    widths: Sequence[int] = _WIDTHS
    num_conv_blocks: Sequence[int] = RESNET_BLOCKS["resnet26"]
    conv_widths: Sequence[int] = RESNET_WIDTHS

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_integers(field.name, getattr(self, field.name))
        if not any(self.num_blocks[1:]):
            raise ValueError(
                "RowSize: num_blocks must have a block behind the first stage, "
                f"which is alike in all rows, got {self.num_blocks}"
            )
        if len(self.num_blocks) != len(self.widths):
            raise ValueError(
                "RowSize: num_blocks and widths must have one entry per "
                f"stage, got {self.num_blocks} and {self.widths}"
            )


@dataclasses.dataclass(frozen=True)
class RowNetwork:
    """What a row is made of; rows of the same network are equal.

    Attributes:
      kind: its blocks: "pair", "patch", "sasa" or "conv".
      size: its name in table 3, such as "san10".
      kernel_size: of all stages but the first of a SAN.
      choices: further arguments of the attention block, by name.
      has_own_size: whether its row says the size, and no RowSize can.
    """

    kind: str
    size: str
    kernel_size: int
    choices: tuple[tuple[str, Any], ...]
    has_own_size: bool = dataclasses.field(compare=False)

    @classmethod
    def of(cls, row: str) -> "RowNetwork":
        """The network of a row, by the row's name."""
        table, kind, *labels = row.split("/")
        size, kernel_size = ("resnet26", 3) if kind == "conv" else ("san10", 7)
        settings = {"kernel_size": kernel_size, **_CHOICES[kind]}
        if table in _VARIED:
            settings.update(_setting(_VARIED[table], *labels))
        has_own_size = table == "table3"
        return cls(
            kind,
            labels[0] if has_own_size else size,
            settings.pop("kernel_size"),
            tuple(settings.items()),
            has_own_size,
        )

    @property
    def sizes(self) -> tuple[str, ...]:
        """What of RowSize it reads."""
        if self.has_own_size:
            return ()
        if self.kind == "conv":
            return ("num_conv_blocks", "conv_widths")
        return ("num_blocks", "widths")

    def factory(self) -> "functools.partial[Any]":
        """What makes it of num_classes, as large as it is configured."""
        if self.kind == "conv":
            return self._conv_factory()
        size = RowSize()
        if self.has_own_size:
            size = RowSize(SAN_BLOCKS[self.size], _WIDTHS)
        attention = ATTENTIONS.get(self.kind, ScalarAttention)
        later = [self.kernel_size] * (len(size.widths) - 1)
        return functools.partial(
            SAN,
            attention=functools.partial(attention, **dict(self.choices)),
            num_blocks=size.num_blocks,
            kernel_sizes=(_FIRST_KERNEL_SIZE, *later),
            widths=size.widths,
        )

    def _conv_factory(self) -> "functools.partial[Any]":
        size = RowSize()
        blocks, widths = size.num_conv_blocks, size.conv_widths
        if self.has_own_size:
            blocks, widths = RESNET_BLOCKS[self.size], RESNET_WIDTHS
        return functools.partial(
            ResNet,
            num_blocks=blocks,
            kernel_size=self.kernel_size,
            widths=widths,
        )


def _check_integers(name: str, sizes: Any) -> None:
    least = 0 if name == "num_blocks" else 1
    if not isinstance(sizes, list | tuple) or not all(
        isinstance(size, int) and not isinstance(size, bool) and size >= least
        for size in sizes
    ):
        raise ValueError(
            f"RowSize: {name} must be a tuple of integers of at least {least}, "
            f"got {sizes!r}"
        )


def _setting(name: str, label: str) -> dict[str, Any]:
    """What a table's row sets, by its label there."""
    if name == "num_layers":
        return {name: _LAYERS[label]}
    if name == "kernel_size":
        return {name: int(label)}
    if label == "phi=psi=beta":
        # One transformation makes C / 4 channels for all three.
        return {name: label, "relation_ratio": 4, "output_ratio": 4}
    return {name: label}
