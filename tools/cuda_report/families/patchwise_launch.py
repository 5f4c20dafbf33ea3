"""Launches of the patchwise attention's kernels.

Tiles, slabs and chunks as the launching code chooses them: cuda_kernels'
patchwise_tile, patchwise_mix and patchwise_gradients.
"""

import dataclasses
import math
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer

SIDE = 8
TILE = SIDE * SIDE
QUADS = TILE // 4
OWNED = 8  # channels or taps whose sums a thread holds
STRIDE = TILE + 4
_AT_ONCE = 8  # loads under way in a copy
DEPTH = 16
COLUMNS = 32
_WANTED_BLOCKS = 1024
CENTRE_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Launch:
    """The sizes of a launch.

    Attributes:
      layer: whose.
      threads: of a block.
      tiles: that a block goes through, the mean.
      channels: of the relation at a time, in hidden_forward.
      groups: of 8 channels of a block, in hidden_gradients.
      group: a block takes 2**group weight channels, one after another.
      taps: that a block computes, or channels in their place.
    """

    layer: Layer
    threads: int
    tiles: float = 1
    channels: int = 0
    groups: int = 1
    group: int = 0
    taps: int = 0

    @property
    def slots(self) -> int:
        """Threads that share a quad."""
        return self.threads // QUADS

    @property
    def rows(self) -> int:
        """Taps, completed to what threads own."""
        return _up(self.taps, OWNED)

    @property
    def halo_side(self) -> int:
        """Rows and columns of the halo."""
        return SIDE + self.layer.k - 1

    @property
    def columns(self) -> int:
        """Of a parameter that a block computes."""
        return min(self.layer.G, COLUMNS)

    def spread(self, count: float) -> float:
        """Steps of a warp where a block's threads share so many items."""
        return math.ceil(count / 32) / (self.threads // 32)

    def copies(self, count: float, threads: float) -> int:
        """Iterations of copy() where so many threads share the elements."""
        return math.ceil(count / threads / _AT_ONCE)

    def product_parts(self) -> tuple[int, int]:
        """Threads that share the pixels of a Product, and its units."""
        units = -(-self.taps // 4) * -(-self.columns // 4)
        return min(self.threads // units, QUADS), units

    def at_edge(self) -> float:
        """Share of the tiles whose halo leaves the image."""
        across = -(-self.layer.side // SIDE)
        return 1 - max(0, across - 2) ** 2 / across**2


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _tiles_of_image(layer: Layer) -> int:
    return (-(-layer.side // SIDE)) ** 2


def _halo(layer: Layer) -> int:
    stride = SIDE + layer.k - 1
    while stride % 8 not in (3, 5):
        stride += 1
    return _up((SIDE + layer.k - 1) * stride - 4, 32) + 4


def _group(layer: Layer) -> int:
    return 2 if layer.G % 4 == 0 else 1 if layer.G % 2 == 0 else 0


def _places(layer: Layer) -> int:
    return (SIDE + layer.k - 1) ** 2


def _taps_threads(layer: Layer) -> int:
    return 128 if _up(layer.K, OWNED) * QUADS <= OWNED * 128 else 256


# ---- Shared memory, in bytes.


def _bytes(*elements: int) -> int:
    return sum(_up(4 * count, 16) for count in elements)


def _sources(layer: Layer) -> int:
    side = SIDE + layer.k - 1
    return _bytes(side, side, _up(layer.K, OWNED))


def _mix(rows: int) -> int:
    return _bytes(DEPTH * STRIDE, DEPTH * ((rows + 27) // 32 * 32 + 4))


def _scratch(rows: int, threads: int) -> int:
    return max(rows * STRIDE, threads // QUADS * OWNED * STRIDE)


# ---- Launches. Those of two halves count as one.


def work(
    launch: Callable[[Layer], tuple[int, Launch]],
    shared: Callable[[Layer], int],
    elements: Callable[[Layer], int],
    flops: Callable[[Layer], int],
) -> Callable[[Layer, DataType, Device], Work]:
    """The work of a kernel's launches.

    Args:
      launch: blocks of the grid, and the sizes.
      shared: bytes of a block.
      elements: that each pixel moves, in float32.
      flops: of each pixel.
    """

    def work(layer: Layer, _: DataType, __: Device) -> Work:
        blocks, sizes = launch(layer)
        return Work(
            blocks,
            sizes.threads,
            shared(layer),
            sizes,
            4 * layer.pixels * elements(layer),
            layer.pixels * flops(layer),
        )

    return work


def _channels(layer: Layer) -> int:
    each = _halo(layer) + layer.K * (OWNED + 2)
    return max(1, min(6144 // each, layer.R, 16))


def hidden_forward(layer: Layer) -> tuple[int, Launch]:
    """Grid of hidden_forward."""
    blocks = BATCH * _tiles_of_image(layer) * -(-layer.G // OWNED)
    sizes = Launch(layer, 256, channels=_channels(layer), taps=layer.K)
    return blocks, sizes


def hidden_forward_bytes(layer: Layer) -> int:
    """Shared memory of hidden_forward."""
    count = _channels(layer)
    staged = _bytes(
        count * _halo(layer),
        count * layer.K * OWNED,
        count * layer.K * 2,
    )
    return _sources(layer) + max(staged, _bytes(16 * OWNED * STRIDE))


def core_forward(layer: Layer) -> tuple[int, Launch]:
    """Grid of core_forward."""
    group = _group(layer)
    blocks = BATCH * _tiles_of_image(layer) * (layer.G >> group)
    threads = _taps_threads(layer)
    return blocks, Launch(layer, threads, group=group, taps=layer.K)


def core_forward_bytes(layer: Layer) -> int:
    """Shared memory of core_forward."""
    rows = _up(layer.K, OWNED)
    matrix = max(rows * STRIDE, layer.k * OWNED * STRIDE)
    halos = (OWNED << _group(layer)) * _halo(layer)
    return _sources(layer) + _mix(rows) + _bytes(matrix, halos)


def bands(
    planes: Callable[[Layer], int], group: Callable[[Layer], int]
) -> Callable[..., tuple[int, Launch]]:
    """Grids of kernels that take bands of tile rows of so many planes."""

    def launch(layer: Layer) -> tuple[int, Launch]:
        down = -(-layer.side // SIDE)
        least = max(1, -(-(layer.k - 1) // SIDE))
        wanted = min(
            max(1, _WANTED_BLOCKS // planes(layer)), max(1, down // least)
        )
        height = -(-down // wanted)
        count = -(-down // height)
        tiles = _tiles_of_image(layer) / count
        sizes = Launch(
            layer,
            _taps_threads(layer),
            tiles=tiles,
            group=group(layer),
            taps=layer.K,
        )
        return planes(layer) * count, sizes

    return launch


def tap_gradients(layer: Layer) -> tuple[int, Launch]:
    """Grid of tap_gradients."""
    return bands(lambda a: BATCH * a.R, lambda a: 0)(layer)


def value_gradients(layer: Layer) -> tuple[int, Launch]:
    """Grid of value_gradients."""
    return bands(lambda a: BATCH * (a.G >> _group(a)), _group)(layer)


def taps_bytes(layer: Layer) -> int:
    """Shared memory of tap_gradients."""
    rows = _up(layer.K, OWNED)
    return (
        _sources(layer)
        + _mix(rows)
        + _bytes(rows * STRIDE, _halo(layer), _places(layer))
    )


def value_bytes(layer: Layer) -> int:
    """Shared memory of value_gradients."""
    rows = _up(layer.K, OWNED)
    return (
        _sources(layer)
        + _mix(rows)
        + _bytes(
            rows * STRIDE,
            (TILE * OWNED + 4) << _group(layer),
            (OWNED << _group(layer)) * _places(layer),
        )
    )


def chunks(
    per_chunk: Callable[[Layer], int],
    threads: int,
    taps: Callable[[Layer], int],
) -> Callable[[Layer], tuple[int, Launch]]:
    """Grids of kernels that take chunks of the tiles, so many blocks each."""

    def launch(layer: Layer) -> tuple[int, Launch]:
        tiles = BATCH * _tiles_of_image(layer)
        wanted = min(max(1, _WANTED_BLOCKS // per_chunk(layer)), tiles)
        count = -(-tiles // -(-tiles // wanted))
        sizes = Launch(layer, threads, tiles=tiles / count, taps=taps(layer))
        return count * per_chunk(layer), sizes

    return launch


def core_weight_gradients(layer: Layer) -> tuple[int, Launch]:
    """Grid of the core's weight_gradients."""
    launch = chunks(lambda a: a.G * weight_blocks(a), 256, lambda a: a.K)
    blocks, sizes = launch(layer)
    group = _group(layer)
    return blocks >> group, dataclasses.replace(sizes, group=group)


def hidden_weight_bytes(layer: Layer) -> int:
    """Shared memory of the hidden layer's weight_gradients."""
    scratch = _scratch(_up(layer.K, OWNED), 128)
    return _sources(layer) + _bytes(scratch, _halo(layer), COLUMNS * STRIDE)


def _groups(layer: Layer) -> int:
    return 2 if layer.G > OWNED else 1


def hidden_gradients(layer: Layer) -> tuple[int, Launch]:
    """Grid of hidden_gradients."""
    blocks = BATCH * _tiles_of_image(layer)
    blocks *= -(-layer.G // (_groups(layer) * OWNED))
    return blocks, Launch(
        layer,
        _taps_threads(layer),
        groups=_groups(layer),
        group=_group(layer),
        taps=layer.K,
    )


def gradient_bytes(layer: Layer, threads: int, columns: int) -> int:
    """Shared memory of the core's gradients."""
    return _sources(layer) + _bytes(
        _scratch(_up(layer.K, OWNED), threads),
        (OWNED << _group(layer)) * _halo(layer),
        (OWNED << _group(layer)) * STRIDE,
        columns,
    )


def hidden_gradient_bytes(layer: Layer) -> int:
    """Shared memory of hidden_gradients."""
    columns = _up(layer.K, OWNED) * _groups(layer) * OWNED
    return gradient_bytes(layer, _taps_threads(layer), columns)


def centre_bytes(layer: Layer) -> int:
    """Shared memory of centre_gradients."""
    return _mix(CENTRE_ROWS) + _bytes(CENTRE_ROWS * STRIDE, COLUMNS * STRIDE)


def hidden_flops(layer: Layer) -> int:
    """Flops of a pixel in the hidden layer."""
    return 2 * layer.G * layer.R * layer.K


def core_flops(layer: Layer) -> int:
    """Flops of a pixel in the core."""
    return 2 * layer.K * (layer.G * layer.G + layer.M)


def weight_blocks(layer: Layer) -> int:
    """Blocks of 32 weight channels."""
    return -(-layer.G // COLUMNS)
