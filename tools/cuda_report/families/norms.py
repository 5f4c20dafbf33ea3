"""Entries of the kernels of norm, ReLU and pooling, and of the stem.

They stand around the attention: the tensors are those of a block's width. Grids
as the launching code chooses them (cuda_kernels, norm_relu).
"""

import dataclasses
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer
from tools.cuda_report.trips import Steps

_THREADS, _MOST_LANES, _WIDE_BYTES = 256, 32, 16
_SUM_BLOCKS = 1024
_RUN = 16  # pixels whose sum is taken in the accumulator
_INPUTS = 3  # channels of an image
# Windows of a thread, or that a step of a sum does, by the pool's size.
_IN_FLIGHT = {1: 4, 2: 1}
_IN_FLIGHT_OF_SUMS = {1: 2, 2: 1}


@dataclasses.dataclass(frozen=True)
class Sums:
    """A launch that sums quantities of each channel over all windows.

    Attributes:
      windows: of the batch.
      bands: that they are in.
      rows: of threads of a block.
      sums: that a block adds up from its rows.
    """

    windows: int
    bands: int
    rows: int
    sums: int

    def of_a_thread(self) -> float:
        """Windows of a thread."""
        return self.windows / self.bands / self.rows


def _block(channels: int, width: int) -> tuple[int, int, int]:
    """Blocks side by side, rows and lanes of one, of `width` channels each."""
    vectors = channels // width
    lanes = min(_MOST_LANES, 1 << (vectors - 1).bit_length())
    return -(-vectors // lanes), _THREADS // lanes, lanes


def _stream(
    elements: Callable[[Layer], float], pool: int
) -> Callable[[Layer, DataType, Device], Work | None]:
    """Threads that do some channels of a window, or of some."""

    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if layer.side % pool:
            return None
        across, rows, _ = _block(layer.width, _WIDE_BYTES // data_type.bytes)
        windows = layer.pixels // (pool * pool)
        return Work(
            -(-windows // (rows * _IN_FLIGHT[pool])) * across,
            _THREADS,
            0,
            None,
            elements(layer) * layer.width * data_type.bytes,
            4 * layer.pixels * layer.width,
        )

    return work


def _sum_work(
    windows: int,
    channels: int,
    width: int,
    quantities: int,
    bytes_: float,
    flops: float,
) -> Work:
    across, rows, lanes = _block(channels, width)
    bands = max(1, min(_SUM_BLOCKS // across, -(-windows // (rows * 8))))
    return Work(
        bands * across,
        _THREADS,
        8 * _THREADS * width * quantities,
        Sums(windows, bands, rows, lanes * width * quantities),
        bytes_,
        flops,
    )


def _sums(
    elements: Callable[[Layer], float], pool: int
) -> Callable[[Layer, DataType, Device], Work | None]:
    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if layer.side % pool:
            return None
        return _sum_work(
            layer.pixels // (pool * pool),
            layer.width,
            _WIDE_BYTES // data_type.bytes,
            2,
            elements(layer) * layer.width * data_type.bytes,
            4 * layer.pixels * layer.width,
        )

    return work


def _sum_loops(in_flight: int) -> tuple[Steps, ...]:
    return (
        Steps(
            "runs",
            lambda t: t.of_a_thread() / _RUN,
            inner=(Steps("pixels", lambda _: _RUN / in_flight, "ffma", 0),),
        ),
        Steps(
            "sums of a block",
            lambda t: t.sums / _THREADS,
            inner=(Steps("rows", lambda t: t.rows, "shared load"),),
        ),
        Steps("no rows", lambda _: 0, "global store"),
    )


def _stem_image(layer: Layer) -> int:
    return 4 * layer.pixels * _INPUTS


def _stem_bytes(layer: Layer) -> int:
    return 4 * (_stem_image(layer) + layer.pixels * layer.width)


def _stem(layer: Layer, _: DataType, __: Device) -> Work | None:
    if layer.number:
        return None
    across, rows, _ = _block(layer.width, _WIDE_BYTES // 4)
    return Work(
        -(-layer.pixels // (rows * _STEM_IN_FLIGHT)) * across,
        _THREADS,
        0,
        None,
        _stem_bytes(layer),
        layer.pixels * layer.width * _FLOPS_OF_WINDOW,
    )


def _stem_sums(layer: Layer, _: DataType, __: Device) -> Work | None:
    if layer.number:
        return None
    return _sum_work(
        layer.pixels,
        layer.width,
        _WIDE_BYTES // 4,
        _INPUTS + 1,
        _stem_bytes(layer),
        layer.pixels * layer.width * (_FLOPS_OF_WINDOW + 2 * _INPUTS),
    )


_GROUP = "norm and stem"
_FLOPS_OF_WINDOW = 4 * 2 * _INPUTS
_STEM_IN_FLIGHT = 4
_MOMENTS_IN_FLIGHT = 4

ENTRIES = (
    Entry(
        "norm_relu.norm_relu.forward<{type}, 1, 16, unsigned int>",
        "norm, ReLU",
        _GROUP,
        {},
        (),
        _stream(lambda a: 2 * a.pixels, 1),
    ),
    Entry(
        "norm_relu.norm_relu.forward<{type}, 2, 16, unsigned int>",
        "norm, ReLU, pooling",
        _GROUP,
        {},
        (),
        _stream(lambda a: 1.25 * a.pixels, 2),
    ),
    Entry(
        "norm_relu.norm_relu.add_band<WindowGradient<{type}, 1, 16>,"
        " unsigned int>",
        "norm, ReLU: sums for gradients, and output",
        _GROUP,
        {},
        _sum_loops(_IN_FLIGHT_OF_SUMS[1]),
        _sums(lambda a: 3 * a.pixels, 1),
    ),
    Entry(
        "norm_relu.norm_relu.add_band<WindowGradient<{type}, 2, 16>,"
        " unsigned int>",
        "norm, ReLU, pooling: sums for gradients",
        _GROUP,
        {},
        _sum_loops(_IN_FLIGHT_OF_SUMS[2]),
        _sums(lambda a: 1.25 * a.pixels, 2),
    ),
    Entry(
        "norm_relu.norm_relu.backward<{type}, 1, 16, unsigned int>",
        "norm, ReLU: gradient of x",
        _GROUP,
        {},
        (),
        _stream(lambda a: 3 * a.pixels, 1),
    ),
    Entry(
        "norm_relu.norm_relu.backward<{type}, 2, 16, unsigned int>",
        "norm, ReLU, pooling: gradient of x",
        _GROUP,
        {},
        (),
        _stream(lambda a: 2.25 * a.pixels, 2),
    ),
    Entry(
        "norm_relu.moments.add_band<Deviation<{type}, 16>, unsigned int>",
        "moments of channels",
        _GROUP,
        {},
        _sum_loops(_MOMENTS_IN_FLIGHT),
        _sums(lambda a: a.pixels, 1),
    ),
    Entry(
        "norm_relu.stem.forward<float, 3, 16, unsigned int>",
        "stem",
        _GROUP,
        {},
        (),
        _stem,
        types=("float32",),
    ),
    Entry(
        "norm_relu.stem.add_band<ParameterGradient<float, 3, 16>,"
        " unsigned int>",
        "stem: gradients of weight and shift",
        _GROUP,
        {},
        _sum_loops(1),
        _stem_sums,
        types=("float32",),
    ),
)
