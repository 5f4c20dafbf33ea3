"""Launches of the patchwise attention's kernels on tensor cores.

Tiles, units and chunks as the launching code chooses them: cuda_kernels'
patchwise tensor_tile, tensor_weights, tensor_gradients and tensor_relation,
where they are explained.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

from tools.cuda_report.entries import DataType, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, Layer

SIDE = 8
TILE = SIDE * SIDE
MEMBERS = 8  # channels of value that share a weight
WIDE, DEEP = 8, 16  # columns and depth of a product
_ENOUGH_BLOCKS = 1024


@dataclasses.dataclass(frozen=True)
class Launch:
    """The sizes of a launch.

    Attributes:
      layer: whose.
      bytes: of an element.
      jobs: that blocks are launched for.
      threads: of a block.
      tiles: of the image that a job goes through, the mean.
      parts: into which the taps are dealt out among warps; or that are added.
      busy: part of the warps' work that exists.
      unit: weight channels whose members are copied together.
      partials: sums that are left of each gradient of a parameter.
    """

    layer: Layer
    bytes: int
    jobs: int
    threads: int
    tiles: float = 1
    parts: float = 1
    busy: float = 1
    unit: int = 0
    partials: int = 0

    @property
    def around(self) -> int:
        """Pixels of a halo, or of what surrounds a tile, along an axis."""
        return SIDE + self.layer.k - 1

    def steps(self, count: float) -> float:
        """Iterations of a thread where a block's threads share a loop."""
        return math.ceil(count / 32) / (self.threads // 32)

    def at_edge(self) -> float:
        """Share of the pixels along an axis that a mirror shows again."""
        return min(1.0, (self.layer.k - 1) / self.layer.side)

    def rows(self) -> float:
        """Pairs of rows of a tile, the mean."""
        return _mean(-(-size // 2) for size in _sizes(self.layer))

    def images(self) -> float:
        """Images of a tile's rows that a tap shows any of, the mean."""
        return _images(self.layer.side, self.layer.k)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _sizes(layer: Layer) -> list[int]:
    """Pixels of the tiles along an axis."""
    return [min(SIDE, layer.side - at) for at in range(0, layer.side, SIDE)]


def _images(side: int, k: int) -> float:
    half, period = k // 2, max(1, 2 * side - 2)
    used = 0
    for first in range(0, side, SIDE):
        for tap in range(k):
            # Which of its images, each pixel first, is shown to a pixel.
            shown = set()
            for at in range(first, min(first + SIDE, side)):
                places = [at] + [
                    v
                    for v in range(-half, side + half)
                    if v != at and (v - at) % period * ((v + at) % period) == 0
                ]
                shown |= {
                    i
                    for i, v in enumerate(places)
                    if 0 <= v + half - tap < side
                }
            used += len(shown)
    return used / len(range(0, side, SIDE)) / k


def tiles(layer: Layer) -> int:
    """Of the batch."""
    return BATCH * len(_sizes(layer)) ** 2


def _parts(jobs: int, most: int) -> int:
    parts = 1
    while parts < 4 and parts * 2 <= most and jobs * parts < _ENOUGH_BLOCKS:
        parts *= 2
    return parts


def _chunks(layer: Layer, per_chunk: int) -> int:
    """Chunks of the tiles, of so many blocks each."""
    wanted = min(max(1, _ENOUGH_BLOCKS // per_chunk), tiles(layer))
    return -(-tiles(layer) // -(-tiles(layer) // wanted))


def _chunked(
    layer: Layer,
    size: int,
    per_chunk: int,
    threads: int,
    row_parts: int = 1,
    **more: float,
) -> Launch:
    count = _chunks(layer, per_chunk * row_parts)
    return Launch(
        layer,
        size,
        count * per_chunk,
        threads,
        tiles=tiles(layer) / count,
        partials=count * row_parts,
        **more,
    )


def _on_tiles(
    layer: Layer,
    size: int,
    per_tile: int,
    pieces: int,
    unit: int = 0,
    most: int = 4,
) -> Launch:
    """A block for each tile, or a few, whose warps share so many pieces."""
    jobs = tiles(layer) * per_tile
    parts = min(_parts(jobs, pieces), most)
    return Launch(layer, size, jobs, 128 * parts, parts=parts, unit=unit)


# ---- What kernels are specialised for.


def columns_together(layer: Layer) -> int:
    """Products of 8 weight channels side by side, in the hidden layer."""
    return 4 if layer.G > 16 else 2 if layer.G > 8 else 1


def unit(layer: Layer, size: int) -> int:
    """Weight channels that a block of the core has side by side."""
    if layer.G == 2:
        return 2
    return 16 if size == 2 and layer.G > WIDE else WIDE


def gradient_unit(layer: Layer) -> int:
    """The same, of gradients of the weights."""
    return min(layer.G, WIDE)


def products(layer: Layer) -> int:
    """Of 8 channels of hidden."""
    return 1 << (-(-layer.G // WIDE) - 1).bit_length()


def blocks_of_relation(layer: Layer) -> int:
    """Of 16 relation channels."""
    return -(-layer.R // DEEP)


# ---- Launches.


def hidden_forward(layer: Layer, size: int) -> Launch:
    """Of tensor_hidden_forward."""
    together = columns_together(layer)
    columns = -(-layer.G // (WIDE * together))
    return _on_tiles(layer, size, columns, layer.K + 1)


def core_forward(layer: Layer, size: int) -> Launch:
    """Of tensor_core_forward, and of tensor_value_gradients."""
    own = unit(layer, size)
    return _on_tiles(layer, size, -(-layer.G // own), layer.K, own)


def hidden_gradients(layer: Layer, size: int) -> Launch:
    """Of tensor_hidden_gradients."""
    exact = size == 4 and products(layer) > 2
    return _on_tiles(
        layer,
        size,
        _shares(layer),
        math.ceil(steps_of_taps(layer)),
        gradient_unit(layer),
        2 if exact else 4,
    )


def steps_of_taps(layer: Layer) -> float:
    """Products over taps, of two or of eight."""
    return layer.K / (8 if gradient_unit(layer) == 2 else 2)


def _shares(layer: Layer) -> int:
    """Into which the weight channels are dealt out, where tiles are few."""
    shares = 1
    while shares * 2 * WIDE <= layer.G and tiles(layer) * shares < 256:
        shares *= 2
    return shares


def units_of_share(layer: Layer) -> float:
    """Of 8 weight channels, in a block of tensor_hidden_gradients."""
    return -(-layer.G // WIDE) / _shares(layer)


def core_weights(layer: Layer, size: int) -> Launch:
    """Of tensor_core_weights."""
    unit = gradient_unit(layer)
    steps = 1 if unit == 2 else max(1, 4 // products(layer))
    owners = math.ceil(steps_of_taps(layer) / steps)
    shares = -(-owners // 8)
    busy = steps_of_taps(layer) / (shares * 8 * steps)
    units = -(-layer.G // WIDE)
    return _chunked(
        layer,
        size,
        units * shares,
        256,
        busy=busy,
        unit=unit,
        row_parts=_row_parts(owners),
    )


def _row_parts(owners: int) -> int:
    """Into which rows are dealt out where so many warps have all other work."""
    return 4 if owners <= 2 else 2 if owners <= 4 else 1


def value_width(a: Launch) -> int:
    """Channels of a pixel that are copied together."""
    return MEMBERS * a.unit


def relation_gradients(layer: Layer, size: int) -> Launch:
    """Of tensor_relation_gradients."""
    blocks = blocks_of_relation(layer)
    owned = min(blocks, 2)
    return _chunked(layer, size, -(-blocks // owned), 128, parts=2 // owned)


def hidden_weights(layer: Layer, size: int) -> Launch:
    """Of tensor_hidden_weights."""
    together = columns_together(layer)
    blocks = blocks_of_relation(layer)

    def units(taps: int) -> int:
        return blocks * (-(-layer.K // taps) + 1)

    most = 8 // together
    taps = next((n for n in range(1, most) if _row_parts(units(n)) > 1), most)
    row_parts = _row_parts(units(taps))
    shares = -(-units(taps) // 8)
    columns = -(-layer.G // (together * WIDE))
    # All code for the most taps counts, whatever is passed by.
    busy = blocks * (layer.K + 1) / (shares * 8 * most)
    sizes = _chunked(
        layer, size, columns * shares, 256, busy=busy, row_parts=row_parts
    )
    return sizes


# ---- Shared memory, in bytes.


def _bytes(*pieces: float) -> int:
    return sum(math.ceil(piece / 16) * 16 for piece in pieces)


def _sources(a: Launch) -> int:
    taps = math.ceil(a.layer.K / 8) * 8
    return _bytes(4 * a.around, 4 * a.around, 4 * taps)


def _halo(a: Launch) -> int:
    return (a.around**2 + 27) // 32 * 32 + 4


def _images_bytes(a: Launch) -> int:
    # One image in a mirror at most, but in images of hardly a footprint.
    at = 4 * most_images(a.layer) * a.layer.k * SIDE
    return _bytes(at, 4 * a.layer.k, at, 4 * a.layer.k)


def most_images(layer: Layer) -> int:
    """Of a row or a column of an image, itself included."""
    side, k = layer.side, layer.k
    half, period = k // 2, max(1, 2 * side - 2)
    return max(
        sum(
            v == at or (v - at) % period * ((v + at) % period) == 0
            for v in range(-half, side + half)
        )
        for at in range(side)
    )


def hidden_forward_bytes(a: Launch) -> int:
    """Of a block of tensor_hidden_forward."""
    pitch = (min(blocks_of_relation(a.layer), 4) | 1) * DEEP
    return _sources(a) + _bytes(
        _halo(a) * pitch * a.bytes, TILE * pitch * a.bytes
    )


def _pitch(channels: int) -> int:
    """Elements of a pixel of what is like value."""
    return MEMBERS * channels + max(channels, WIDE)


def depth(layer: Layer) -> int:
    """Of products with hidden, in steps."""
    return -(-layer.G // DEEP)


def core_forward_bytes(a: Launch) -> int:
    """Of a block of tensor_core_forward."""
    left = 16 if a.bytes == 2 else 64
    return _sources(a) + _bytes(
        depth(a.layer) * 128 * left,
        _halo(a) * _pitch(unit(a.layer, a.bytes)) * a.bytes,
    )


def value_gradients_bytes(a: Launch) -> int:
    """Of a block of tensor_value_gradients."""
    pixels = (a.around + 1) ** 2
    return _images_bytes(a) + _bytes(
        pixels * _pitch(unit(a.layer, a.bytes)) * a.bytes,
        pixels * (depth(a.layer) | 1) * DEEP * a.bytes,
    )


def hidden_gradients_bytes(a: Launch) -> int:
    """Of a block of tensor_hidden_gradients."""
    pitch = _pitch(gradient_unit(a.layer))
    return _sources(a) + _bytes(_halo(a) * pitch * a.bytes)


def core_weights_bytes(a: Launch) -> int:
    """Of a block of tensor_core_weights."""
    count = products(a.layer)
    hidden = (count | 1 if a.bytes == 2 else count + 1) * WIDE
    pitch = _pitch(gradient_unit(a.layer))
    return _sources(a) + _bytes(
        _halo(a) * pitch * a.bytes,
        TILE * pitch * a.bytes,
        TILE * hidden * a.bytes,
        8 * DEEP * 24 * a.bytes,
    )


def relation_gradients_bytes(a: Launch) -> int:
    """Of a block of tensor_relation_gradients."""
    pitch = (depth(a.layer) | 1) * DEEP
    blocks = min(blocks_of_relation(a.layer), 2)
    return _images_bytes(a) + _bytes(
        (a.around + 1) ** 2 * pitch * a.bytes,
        4 * 2 * (a.layer.K + 1) * blocks * DEEP * 2,
        4 * 2 * 32 * 16,
    )


def hidden_weights_bytes(a: Launch) -> int:
    """Of a block of tensor_hidden_weights."""
    count = columns_together(a.layer)
    pitch = (count | 1) * WIDE if a.bytes == 2 else count * WIDE + 4
    return _images_bytes(a) + _bytes((a.around + 1) ** 2 * pitch * a.bytes)


# ---- Work.

_Count = Callable[[Layer], int]


def work(
    launch: Callable[[Layer, int], Launch],
    shared: Callable[[Launch], int],
    elements: _Count,
    flops: _Count,
    part: _Count = lambda layer: 0,
) -> Callable[[Layer, DataType, Device], Work]:
    """The work of a kernel's launches.

    Args:
      launch: the sizes.
      shared: bytes of a block.
      elements: of images that each pixel moves, beside hidden in float32.
      flops: of each pixel.
      part: elements of the sums that are left of parameters' gradients.
    """

    def work(layer: Layer, data_type: DataType, _: Device) -> Work:
        sizes = launch(layer, data_type.bytes)
        moved = elements(layer) * data_type.bytes + 4 * layer.G
        return Work(
            sizes.jobs,
            sizes.threads,
            shared(sizes),
            sizes,
            layer.pixels * moved + 4 * sizes.partials * part(layer),
            layer.pixels * flops(layer),
        )

    return work


def sums(
    launches: tuple[Callable[[Layer, int], Launch], ...],
    parts: tuple[_Count, ...],
) -> Callable[[Layer, DataType, Device], Work]:
    """The work that adds the partial sums of launches, together.

    Args:
      launches: that leave them.
      parts: elements of one sum of each.
    """

    def work(layer: Layer, data_type: DataType, _: Device) -> Work:
        counts = [part(layer) for part in parts]
        partials = [
            launch(layer, data_type.bytes).partials for launch in launches
        ]
        added = sum(map(math.prod, zip(counts, partials, strict=True)))
        total = sum(counts)
        blocks = -(-total // 256)
        sizes = Launch(layer, 4, blocks, 256, parts=added / total)
        return Work(blocks, 256, 0, sizes, 4 * (added + total), added)

    return work


def hidden_flops(layer: Layer) -> int:
    """Flops of a pixel in the hidden layer."""
    return 2 * layer.G * layer.R * (layer.K + 1)


def core_flops(layer: Layer) -> int:
    """Flops of a pixel in the core."""
    return 2 * layer.K * (layer.G * layer.G + layer.M)
