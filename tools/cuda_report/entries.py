"""What an entry of the model is: a kernel, its loops, what a launch does."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer
from tools.cuda_report.trips import Steps


@dataclasses.dataclass(frozen=True)
class DataType:
    """A type of the features.

    Attributes:
      name: in kernels' names.
      exact: in names of kernels for tensor cores, without TF32.
      bytes: of an element.
      is_half: whether the targets for half types hold.
    """

    name: str
    exact: str
    bytes: int
    is_half: bool


TYPES = {
    "float32": DataType("float", "SplitFloat", 4, False),
    "bfloat16": DataType("bfloat16", "bfloat16", 2, True),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """A launch of a kernel.

    Attributes:
      blocks: of the grid.
      threads: of a block.
      shared_bytes: dynamic shared memory of a block.
      sizes: what the entry's trips are functions of.
      bytes: that have to be moved, each tensor once.
      flops: that the task asks for, two for a multiply-add.
    """

    blocks: float
    threads: int
    shared_bytes: int
    sizes: Any
    bytes: float
    flops: float


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A kernel and how often a network launches it.

    Attributes:
      kernel: its readable name, without the source file if it is no other's,
        with {type} or {exact}, {k}, {R}, {G}, {M}, {side} and what `sizes` has
        for what it is specialised for.
      what: it is for.
      group: `pairwise core`, `patchwise core`, `window operator` or `norm and
        stem`.
      passes: launches for each block, of a `forward` of inference and of
        `training`, forward and backward together.
      loops: in the order of its source.
      work: of a launch; None where the kernel is not launched.
      types: of TYPES that it is launched for.
      sizes: what else it is specialised for.
    """

    kernel: str
    what: str
    group: str
    passes: dict[str, int]
    loops: tuple[Steps, ...]
    work: Callable[[Layer, DataType, Device], Work | None]
    types: tuple[str, ...] = ("float32", "bfloat16")
    sizes: Callable[[Layer, DataType], dict[str, int]] = lambda *_: {}

    def name(self, layer: Layer, data_type: DataType) -> str:
        """The kernel's name for a layer."""
        return self.kernel.format(
            type=data_type.name,
            exact=data_type.exact,
            k=layer.k,
            R=layer.R,
            G=layer.G,
            M=layer.M,
            side=layer.side,
            **self.sizes(layer, data_type),
        )

    @property
    def specialised(self) -> bool:
        """Whether the kernel knows sizes of its layer when it is compiled."""
        return bool(re.search(r"\{(?!type|exact)", self.kernel))
