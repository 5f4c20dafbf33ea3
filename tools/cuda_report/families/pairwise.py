"""Entries of the pairwise attention's kernels."""

from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.families import pairwise_differences
from tools.cuda_report.families.pairwise_loops import (
    ATTEND,
    SUM_MOMENTS,
    SUM_PRODUCTS,
    attend_backward,
    spread_moments,
)
from tools.cuda_report.families.pairwise_tile import (
    THREADS,
    Needs,
    choose_tile,
    outer_elements,
)
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer

# ---- Launches.


def _pairs(layer: Layer) -> int:
    return layer.pixels * layer.K


def _mapping_flops(layer: Layer) -> int:
    return 2 * layer.R * (layer.R + layer.G)


def _work(
    needs: Needs,
    elements: Callable[[Layer], float],
    flops: Callable[[Layer], float],
    part: Callable[[Layer], int] | None = None,
    sums: int = 0,
) -> Callable[[Layer, DataType, Device], Work]:
    """Launches with buffers for `needs`.

    Args:
      needs: what the kernel keeps.
      elements: of features and the like that each pixel moves.
      flops: of each pair.
      part: elements of a part, in float64, if the launch sums in parts.
      sums: of the softmax, [N H W, G] in float32, that are moved.
    """

    def work(layer: Layer, data_type: DataType, device: Device) -> Work:
        part_elements = part(layer) if part else 0
        tile = choose_tile(layer, needs, device, part_elements)
        moved = elements(layer) * data_type.bytes + 4 * sums * layer.G
        return Work(
            tile.blocks,
            THREADS,
            tile.shared_bytes(needs),
            tile,
            layer.pixels * moved + 8 * tile.parts * part_elements,
            _pairs(layer) * flops(layer),
        )

    return work


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
) -> Work:
    elements = layer.pixels * layer.G
    blocks = -(-elements // THREADS)
    moved = 2 * layer.pixels * layer.M * data_type.bytes + 4 * elements
    return Work(blocks, THREADS, 0, layer, moved, 2 * layer.pixels * layer.M)


_GROUP = "pairwise core"
_TRAINING = {"training": 1}
_P, _Q = "(Own)0", "(Own)1"

ENTRIES = (
    Entry(
        "pairwise.attend<{type}>",
        "forward",
        _GROUP,
        {"forward": 1, "training": 1},
        ATTEND,
        _work(
            Needs(2, 2, 0, value=True, softmax=True),
            lambda a: a.F + a.M,
            lambda a: _mapping_flops(a) + 2 * a.M,
            sums=1,
        ),
        types=("float32",),
    ),
    Entry(
        "pairwise.sum_products<{type}>",
        "grad_output * output of each group",
        _GROUP,
        _TRAINING,
        SUM_PRODUCTS,
        _work_of_products,
    ),
    Entry(
        "pairwise.sum_moments<{type}>",
        "statistics of the second norm",
        _GROUP,
        _TRAINING,
        SUM_MOMENTS,
        _work(
            Needs(2, 0, 0),
            lambda a: 2 * a.R,
            lambda a: 2 * a.R * a.R,
            _moments_part,
        ),
    ),
    Entry(
        f"pairwise.attend_backward<{{type}}, {_P}>",
        "gradients of phi and the mapping",
        _GROUP,
        _TRAINING,
        attend_backward(True),
        _work(
            Needs(4, 2, 2),
            lambda a: a.F + a.M + a.R,
            lambda a: 3 * _mapping_flops(a) + 2 * a.M,
            _mapping_part,
            sums=2,
        ),
    ),
    Entry(
        f"pairwise.attend_backward<{{type}}, {_Q}>",
        "gradients of psi and beta",
        _GROUP,
        _TRAINING,
        attend_backward(False),
        _work(
            Needs(5, 2, 1, value=True),
            lambda a: a.F + a.M + a.R + a.M,
            lambda a: 2 * _mapping_flops(a) + 4 * a.M,
            sums=2,
        ),
    ),
    Entry(
        f"pairwise.spread_moments<{{type}}, {_P}>",
        "gradient of second norm's statistics, phi",
        _GROUP,
        _TRAINING,
        spread_moments(True),
        _work(
            Needs(2, 1, 2),
            lambda a: 3 * a.R,
            lambda a: 2 * a.R * a.R,
            _vectors,
        ),
    ),
    Entry(
        f"pairwise.spread_moments<{{type}}, {_Q}>",
        "gradient of second norm's statistics, psi",
        _GROUP,
        _TRAINING,
        spread_moments(False),
        _work(
            Needs(2, 1, 1),
            lambda a: 3 * a.R + a.M,
            lambda a: 2 * a.R * a.R,
        ),
    ),
    *pairwise_differences.ENTRIES,
)
