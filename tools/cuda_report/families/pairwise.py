"""Entries of the pairwise attention's kernels."""

import functools
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.families import pairwise_differences
from tools.cuda_report.families import pairwise_fixed_loops as fixed_loops
from tools.cuda_report.families.pairwise_fixed_tile import (
    FixedTile,
    fixed_tile,
)
from tools.cuda_report.families.pairwise_loops import (
    ATTEND,
    SUM_MOMENTS,
    SUM_PRODUCTS,
    attend_backward,
    spread_moments,
)
from tools.cuda_report.families.pairwise_tensor import has_kernel
from tools.cuda_report.families.pairwise_tile import (
    THREADS,
    Needs,
    Tile,
    choose_tile,
    outer_elements,
)
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer
from tools.cuda_report.trips import Steps

# ---- Launches.


def _pairs(layer: Layer) -> int:
    return layer.pixels * layer.K


def _mapping_flops(layer: Layer) -> int:
    return 2 * layer.R * (layer.R + layer.G)


def _entries(
    kernel: str,
    what: str,
    loops: tuple[tuple[Steps, ...], tuple[Steps, ...]],
    needs: Needs,
    elements: Callable[[Layer], float],
    flops: Callable[[Layer], float],
    part: Callable[[Layer], int] | None = None,
    sums: int = 0,
    passes: dict[str, int] | None = None,
    first_stage: bool = True,
) -> tuple[Entry, Entry]:
    """A kernel that knows its layer's sizes, and the one that knows none.

    Args:
      kernel: its name, with {tile} as the last thing it is specialised for.
      what: it is for.
      loops: of the one for float32, whose tile is fixed, and of the other,
        which float32 has where that one does not fit shared memory.
      needs: what the kernel keeps.
      elements: of features and the like that each pixel moves.
      flops: of each pair.
      part: elements of a part, in float64, if the launch sums in parts.
      sums: of the softmax, [N H W, G] in float32, that are moved.
      passes: launches, if it is not one of training.
      first_stage: whether that has no kernel of its own.
    """

    def tile_of(layer: Layer, data_type: DataType, device: Device) -> Tile:
        part_elements = part(layer) if part else 0
        fixed = fixed_tile(layer, part_elements)
        if (
            not data_type.is_half
            and fixed.shared_bytes(needs) <= device.most_shared
        ):
            return fixed
        return choose_tile(layer, needs, device, part_elements)

    def work(
        of_fixed: bool, layer: Layer, data_type: DataType, device: Device
    ) -> Work | None:
        if has_kernel(layer, data_type, device):
            return None
        if layer.G < 8 and not first_stage:
            return None
        tile = tile_of(layer, data_type, device)
        if isinstance(tile, FixedTile) != of_fixed:
            return None
        moved = elements(layer) * data_type.bytes + 4 * sums * layer.G
        return Work(
            tile.blocks,
            THREADS,
            tile.shared_bytes(needs),
            tile,
            layer.pixels * moved + 8 * tile.parts * tile.part_elements,
            _pairs(layer) * flops(layer),
        )

    def entry(tile: str, steps: tuple[Steps, ...], *types: str) -> Entry:
        return Entry(
            kernel.replace("{tile}", tile),
            what,
            _GROUP,
            passes or {"training": 1},
            steps,
            functools.partial(work, tile != "Tile"),
            types,
        )

    fixed, general = loops
    return (
        entry("FixedTile<{R}, {G}, {M}>", fixed, "float32"),
        entry("Tile", general, "float32", "bfloat16"),
    )


def _vectors(layer: Layer) -> int:
    return 2 * layer.R


def _moments_part(layer: Layer) -> int:
    return layer.K * layer.R + outer_elements(layer.R, layer.R)


def _mapping_part(layer: Layer) -> int:
    products = outer_elements(layer.R, layer.R)
    products += outer_elements(layer.G, layer.R)
    return (2 + layer.K) * layer.R + products


def _work_of_products(
    layer: Layer, data_type: DataType, device: Device
) -> Work | None:
    if has_kernel(layer, data_type, device):
        return None
    elements = layer.pixels * layer.G
    blocks = -(-elements // THREADS)
    moved = 2 * layer.pixels * layer.M * data_type.bytes + 4 * elements
    return Work(blocks, THREADS, 0, layer, moved, 2 * layer.pixels * layer.M)


_GROUP = "pairwise core"
_P, _Q = "(Own)0", "(Own)1"

ENTRIES = (
    *_entries(
        "pairwise.attend<{type}, {tile}>",
        "forward",
        (fixed_loops.ATTEND, ATTEND),
        Needs(2, 2, 0, value=True, softmax=True),
        lambda a: a.F + a.M,
        lambda a: _mapping_flops(a) + 2 * a.M,
        sums=1,
        passes={"forward": 1, "training": 1},
        first_stage=False,
    ),
    Entry(
        "pairwise.sum_products<{type}>",
        "grad_output * output of each group",
        _GROUP,
        {"training": 1},
        SUM_PRODUCTS,
        _work_of_products,
    ),
    *_entries(
        "pairwise.sum_moments<{type}, {tile}>",
        "statistics of the second norm",
        (fixed_loops.SUM_MOMENTS, SUM_MOMENTS),
        Needs(2, 0, 0),
        lambda a: 2 * a.R,
        lambda a: 2 * a.R * a.R,
        _moments_part,
    ),
    *_entries(
        f"pairwise.attend_backward<{{type}}, {_P}, {{tile}}>",
        "gradients of phi and the mapping",
        (fixed_loops.attend_backward(True), attend_backward(True)),
        Needs(4, 2, 2),
        lambda a: a.F + a.M + a.R,
        lambda a: 3 * _mapping_flops(a) + 2 * a.M,
        _mapping_part,
        sums=2,
    ),
    *_entries(
        f"pairwise.attend_backward<{{type}}, {_Q}, {{tile}}>",
        "gradients of psi and beta",
        (fixed_loops.attend_backward(False), attend_backward(False)),
        Needs(5, 2, 1, value=True),
        lambda a: a.F + a.M + a.R + a.M,
        lambda a: 2 * _mapping_flops(a) + 4 * a.M,
        sums=2,
    ),
    *_entries(
        f"pairwise.spread_moments<{{type}}, {_P}, {{tile}}>",
        "gradient of second norm's statistics, phi",
        (fixed_loops.spread_moments(True), spread_moments(True)),
        Needs(2, 1, 2),
        lambda a: 3 * a.R,
        lambda a: 2 * a.R * a.R,
        _vectors,
    ),
    *_entries(
        f"pairwise.spread_moments<{{type}}, {_Q}, {{tile}}>",
        "gradient of second norm's statistics, psi",
        (fixed_loops.spread_moments(False), spread_moments(False)),
        Needs(2, 1, 1),
        lambda a: 3 * a.R + a.M,
        lambda a: 2 * a.R * a.R,
    ),
    *pairwise_differences.ENTRIES,
)
