"""The targets: what each kind of work is measured against, in one table.

A row of a report that matches a target by device, work and peer is judged by
it. A target over several works is judged by their geometric mean.
"""

import dataclasses
from collections.abc import Sequence

BEST_PEER = "best of all peers"
HARDWARE = "hardware ceiling"
PUBLISHED_DESIGN = "eager on kernels"
SIMPLE = "one thread per output"
DEFAULT_MALLOC = ", default malloc"
ONE_MB = "one MB"
# Behind the name of a best way: no target holds there.
SLOW_BFLOAT16 = ", but bfloat16 is slow here"

# Rows of the paper's tables whose attention no fused operator computes.
UNFUSED_ROWS = (
    "table4/pair/concatenation",
    "table4/pair/hadamard",
    "table4/pair/dot",
    "table4/patch/star",
    "table4/patch/clique",
    "table5/pair/L",
    "table5/pair/L-R-L-R-L",
    "table5/patch/L",
    "table5/patch/L-R-L-R-L",
    "table6/pair/phi=psi=beta",
    "table6/patch/phi=psi=beta",
    "table8/pair/absolute",
    "table5.3/sasa",
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Three ratios that work is judged by.

    Attributes:
      works: names of the works; several count by their geometric mean.
      peer: name of what they are compared with.
      floor: must hold on a busy two-core machine.
      attainable: shown, or one step away.
      moonshot: what the project is after.
      device: "cpu" or "cuda".
      summary: name of the row for several works.
      smaller_is_better: the ratio is a cost, not a gain.
    """

    works: tuple[str, ...]
    peer: str
    floor: float
    attainable: float
    moonshot: float
    device: str = "cpu"
    summary: str = ""
    smaller_is_better: bool = False

    def verdict(self, ratio: float) -> str:
        """The best of the three that this ratio reaches."""
        sign = -1 if self.smaller_is_better else 1
        for name in ("moonshot", "attainable", "floor"):
            if sign * ratio >= sign * getattr(self, name):
                return name
        return "BELOW FLOOR"


def layers(work: str, numbers: Sequence[int]) -> tuple[str, ...]:
    """Names of the same work at several layers of SAN10."""
    return tuple(f"{work}, layer {number}" for number in numbers)


def unfused_memory(row: str, part: str) -> str:
    """Name of the work of a row's network, or of a block of it."""
    return f"{row} {part}, peak training memory per image"


def twin_work(
    network: str, mode: str, batch: int, dtype: str, threads: int
) -> str:
    """Name of the work of a network in some conditions; see twin.py."""
    threads_text = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{network} {mode}, batch {batch}, {dtype}, {threads_text}"


def saved_work(network: str, batch: int) -> str:
    """Name of what a network saves for the backward pass."""
    return f"{network} saved tensors per image, batch {batch}"


def best_of(network: str) -> str:
    """Name of the fastest way of a network, as a peer."""
    return f"{network}, best"


def find(device: str, work: str, peer: str) -> Target | None:
    """The target of one row, or None."""
    for target in TARGETS:
        if (target.device, target.works, target.peer) == (
            device,
            (work,),
            peer,
        ):
            return target
    return None


def names(device: str, work: str, peer: str) -> bool:
    """Whether some target, perhaps over several works, has this row."""
    return any(
        (target.device, target.peer) == (device, peer) and work in target.works
        for target in TARGETS
    )


_OPERATORS = (
    "aggregation forward",
    "aggregation gradients",
    "subtraction2 forward",
    "subtraction2 gradients",
)
_RELATIONS = {
    "pairwise": (
        "summation",
        "subtraction",
        "concatenation",
        "hadamard",
        "dot",
    ),
    "patchwise": ("star", "clique", "concatenation"),
}
_UNFOLD = "unfold"
_EAGER = "eager"

# Beside ResNet26 in its best way, on one thread and on two.
_TWIN = {
    ("san10_pair", "inference", 8, "float32"): (0.92, 1, 1.15),
    ("san10_patch", "inference", 8, "float32"): (0.95, 1.08, 1.25),
    ("san10_pair", "inference", 1, "float32"): (0.82, 0.92, 1.1),
    ("san10_patch", "inference", 1, "float32"): (0.82, 0.92, 1.1),
    ("san10_pair", "inference", 8, "bfloat16"): (0.9, 1.1, 1.4),
    ("san10_patch", "inference", 8, "bfloat16"): (0.9, 1.1, 1.4),
    ("san10_pair", "training step", 8, "float32"): (0.8, 0.92, 1.05),
    ("san10_patch", "training step", 8, "float32"): (0.9, 1.02, 1.2),
    ("san10_pair", "training step", 8, "bfloat16"): (0.7, 0.9, 1.1),
    ("san10_patch", "training step", 8, "bfloat16"): (0.8, 1, 1.2),
}
# One image by ONNX Runtime or OpenVINO, whichever is faster.
_EXPORTED = {"san10_pair": (2.5, 3.2, 4), "san10_patch": (2.3, 3, 4)}

_CPU = (
    Target(
        layers("aggregation forward", (1, 2, 3)),
        _UNFOLD,
        *(15, 30, 60),
        summary="aggregation forward, layers 1-3",
    ),
    Target(layers("aggregation forward", (4,)), _UNFOLD, 8, 20, 45),
    Target(layers("aggregation forward", (0,)), _UNFOLD, 10, 18, 35),
    Target(
        layers("aggregation forward", range(5)),
        BEST_PEER,
        *(3, 8, 15),
        summary="aggregation forward, layers 0-4",
    ),
    Target(
        layers("aggregation gradients", range(5)),
        _UNFOLD,
        *(5, 10, 25),
        summary="aggregation gradients, layers 0-4",
    ),
    Target(
        layers("subtraction2 forward", (0, 1, 2)),
        _UNFOLD,
        *(4, 8, 11),
        summary="subtraction2 forward, layers 0-2",
    ),
    Target(
        layers("subtraction2 gradients", (0, 1, 2)),
        _UNFOLD,
        *(2, 4.6, 9),
        summary="subtraction2 gradients, layers 0-2",
    ),
    Target(
        layers("pairwise core inference", (1, 2, 3)),
        _EAGER,
        *(6, 14, 25),
        summary="pairwise core inference, layers 1-3",
    ),
    Target(("san10_pair inference, batch 8",), _EAGER, 2.8, 4.6, 8),
    Target(
        ("san10_pair inference, batch 8",),
        _EAGER + DEFAULT_MALLOC,
        *(5, 11, 18),
    ),
    Target(("san10_patch inference, batch 8",), _EAGER, 1.4, 2.6, 4.5),
    Target(("san10_pair training step, batch 8",), _EAGER, 1.3, 2.2, 3.5),
    Target(("san10_pair inference, batch 1",), _EAGER, 2.8, 4.5, 8),
    *(
        Target(
            (f"{name} saved tensors per image",),
            PUBLISHED_DESIGN,
            *(2.2, 3, 6),
        )
        for name in ("san10_pair", "san15_pair", "san19_pair")
    ),
    Target(("san10_pair peak inference memory per image",), _EAGER, 3, 6.4, 8),
    # Never slower and never larger than what one writes without a kernel.
    *(
        Target(
            layers(f"{kind} {name} {mode}", range(1, 5)),
            _UNFOLD,
            *(1, 2, 4),
            summary=f"{kind} {name} {mode}, layers 1-4",
        )
        for kind, names in _RELATIONS.items()
        for name in names
        for mode in ("forward", "gradients")
    ),
    *(
        Target((unfused_memory(row, part),), _UNFOLD, 1, 1.2, 2)
        for part in ("block", "network")
        for row in UNFUSED_ROWS
    ),
    *(
        Target((twin_work(*of, threads),), best_of("resnet26"), *steps)
        for of, steps in _TWIN.items()
        for threads in (1, 2)
    ),
    *(
        Target(
            (twin_work(name, "inference", 1, "float32", threads),),
            best_of(f"{name} exported"),
            *steps,
        )
        for name, steps in _EXPORTED.items()
        for threads in (1, 2)
    ),
    Target(
        (saved_work("san10_pair", 8),),
        ONE_MB,
        *(42.3, 35, 25),
        smaller_is_better=True,
    ),
    Target(("input, images per second and core",), "PIL loader", 1.2, 1.6, 3),
    Target(
        ("import san",),
        "import torch",
        *(0.10, 0.04, 0.02),
        smaller_is_better=True,
    ),
    Target(
        ("first call at a new shape",),
        "second call",
        *(5, 2, 1.2),
        smaller_is_better=True,
    ),
    Target(
        ("asking why not fused, SAN10-pair",),
        "inference, batch 1",
        *(0.02, 0.015, 0.01),
        smaller_is_better=True,
    ),
    Target(
        ("different bits in runs of 1, 2 and 3 threads",),
        "all results",
        *(0, 0, 0),
        smaller_is_better=True,
    ),
)

_CUDA = (
    *(
        Target((work,), HARDWARE, 0.5, 0.8, 0.9, device="cuda")
        for operator in _OPERATORS
        for work in layers(operator, range(5))
    ),
    *(
        Target((work,), SIMPLE, 1.5, 3, 6, device="cuda")
        for operator in _OPERATORS
        for work in layers(operator, range(5))
    ),
    Target(
        ("san10_pair training step, batch 64",),
        _EAGER,
        *(1.5, 2.3, 4.5),
        device="cuda",
    ),
    Target(
        ("san10_pair inference, batch 64",),
        _EAGER,
        *(1.5, 2.5, 10),
        device="cuda",
    ),
    Target(
        ("launches per block",),
        "one launch",
        *(12, 5, 2),
        device="cuda",
        smaller_is_better=True,
    ),
    Target(
        ("first call at a new shape",),
        "second call",
        *(5, 2, 1.2),
        device="cuda",
        smaller_is_better=True,
    ),
)

TARGETS: tuple[Target, ...] = _CPU + _CUDA
