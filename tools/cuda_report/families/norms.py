"""Entries of the kernels of norm, ReLU and pooling, and of the stem.

They stand around the attention: the tensors are those of a block's width. Grids
as the launching code chooses them (cuda_kernels, channel_sums).
"""

import dataclasses
from collections.abc import Callable

from tools.cuda_report.entries import DataType, Entry, Work
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer
from tools.cuda_report.trips import Steps

_LANES, _ROWS, _BANDS = 32, 8, 128
_RUN = 16  # pixels whose sum is taken in the accumulator
_THREADS = _LANES * _ROWS
_INPUTS = 3  # channels of an image


@dataclasses.dataclass(frozen=True)
class Sums:
    """A launch that sums quantities of each channel over all windows.

    Attributes:
      windows: of the batch.
      quantities: that blocks share; each block sums one.
    """

    windows: int
    quantities: int

    def pixels(self) -> float:
        """Windows of a thread."""
        return self.windows / _BANDS / _ROWS


def _grid(pixels: int, channels: int) -> int:
    return -(-pixels // _ROWS) * -(-channels // _LANES)


def _stream(
    elements: Callable[[Layer], float], pool: int, of_windows: bool
) -> Callable[[Layer, DataType, Device], Work | None]:
    """A thread for each window, or each pixel, and channel."""

    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if layer.side % pool:
            return None
        threads = layer.pixels // (pool * pool if of_windows else 1)
        return Work(
            _grid(threads, layer.width),
            _THREADS,
            0,
            None,
            elements(layer) * layer.width * data_type.bytes,
            4 * layer.pixels * layer.width,
        )

    return work


def _sums(
    elements: Callable[[Layer], float], pool: int
) -> Callable[[Layer, DataType, Device], Work | None]:
    def work(layer: Layer, data_type: DataType, _: Device) -> Work | None:
        if layer.side % pool:
            return None
        return Work(
            _BANDS * -(-layer.width // _LANES) * 2,
            _THREADS,
            8 * _THREADS,
            Sums(layer.pixels // (pool * pool), 2),
            elements(layer) * layer.width * data_type.bytes,
            4 * layer.pixels * layer.width,
        )

    return work


def _runs(*inner: Steps) -> Steps:
    return Steps("runs", lambda t: t.pixels() / _RUN, inner=inner)


def _half_of(what: str, anchor: str, per_step: int = 0) -> Steps:
    """Half of the blocks sum the one quantity, half the other."""
    return Steps(what, lambda t: _RUN / t.quantities, anchor, per_step)


def _stem(
    elements: Callable[[Layer], float],
    blocks: Callable[[Layer], int],
    flops: int,
    sizes: Callable[[Layer], Sums] | None = None,
) -> Callable[[Layer, DataType, Device], Work | None]:
    def work(layer: Layer, _: DataType, __: Device) -> Work | None:
        if layer.number:
            return None
        return Work(
            blocks(layer),
            _THREADS,
            8 * _THREADS if sizes else 0,
            sizes(layer) if sizes else None,
            4 * elements(layer),
            layer.pixels * layer.width * flops,
        )

    return work


def _stem_image(layer: Layer) -> int:
    return 4 * layer.pixels * _INPUTS


def _convolutions(what: str, pixels: int) -> tuple[Steps, ...]:
    return tuple(
        Steps(f"{what}: pixel {i} of 4", lambda t: _INPUTS, "ffma")
        for i in range(pixels)
    )


_GROUP = "norm and stem"
_FLOPS_OF_WINDOW = 4 * 2 * _INPUTS

ENTRIES = (
    Entry(
        "norm_relu.norm_relu.forward<{type}, 1>",
        "norm, ReLU",
        _GROUP,
        {},
        (),
        _stream(lambda a: 2 * a.pixels, 1, True),
    ),
    Entry(
        "norm_relu.norm_relu.forward<{type}, 2>",
        "norm, ReLU, pooling",
        _GROUP,
        {},
        (),
        _stream(lambda a: 1.25 * a.pixels, 2, True),
    ),
    Entry(
        "norm_relu.norm_relu.add_band<float, WindowGradient<{type}, 1>>",
        "norm, ReLU: sums for gradients, and output",
        _GROUP,
        {},
        (
            Steps(
                "first quantity",
                lambda t: t.pixels() / _RUN / t.quantities,
                inner=(Steps("pixels", lambda t: _RUN, "global store", 0),),
            ),
            Steps(
                "second quantity",
                lambda t: t.pixels() / _RUN / t.quantities,
                inner=(
                    Steps("pixels", lambda t: _RUN, "ffma", 2),
                    Steps("first without output", lambda t: 0, "ffma"),
                ),
            ),
        ),
        _sums(lambda a: 3 * a.pixels, 1),
    ),
    Entry(
        "norm_relu.norm_relu.add_band<float, WindowGradient<{type}, 2>>",
        "norm, ReLU, pooling: sums for gradients",
        _GROUP,
        {},
        (
            _runs(
                _half_of("first quantity", "global store"),
                _half_of("second quantity", "ffma"),
            ),
        ),
        _sums(lambda a: 1.25 * a.pixels, 2),
    ),
    Entry(
        "norm_relu.norm_relu.backward<{type}, 1>",
        "norm, ReLU: gradient of x",
        _GROUP,
        {},
        (),
        _stream(lambda a: 3 * a.pixels, 1, False),
    ),
    Entry(
        "norm_relu.norm_relu.backward<{type}, 2>",
        "norm, ReLU, pooling: gradient of x",
        _GROUP,
        {},
        (),
        _stream(lambda a: 2.25 * a.pixels, 2, False),
    ),
    Entry(
        "norm_relu.norm_relu.add_band<float, Deviation<{type}>>",
        "moments of channels",
        _GROUP,
        {},
        tuple(
            Steps(
                what,
                lambda t: t.pixels() / _RUN / t.quantities,
                inner=(Steps("pixels", lambda t: _RUN, "global load", 0),),
            )
            for what in ("squares", "deviations")
        ),
        _sums(lambda a: a.pixels, 1),
    ),
    Entry(
        "norm_relu.stem.forward<float>",
        "stem",
        _GROUP,
        {},
        _convolutions("convolution", 4),
        _stem(
            lambda a: _stem_image(a) + a.pixels * a.width,
            lambda a: _grid(a.pixels, a.width),
            _FLOPS_OF_WINDOW,
        ),
        types=("float32",),
    ),
    Entry(
        "norm_relu.stem.add_band<float, ParameterGradient<float>>",
        "stem: gradients of weight and shift",
        _GROUP,
        {},
        (
            _runs(
                Steps("no inputs", lambda t: 0, "global load", 0),
                Steps(
                    "windows",
                    lambda t: _RUN,
                    inner=_convolutions("convolution", 4),
                ),
            ),
        ),
        _stem(
            lambda a: _stem_image(a) + a.pixels * a.width,
            lambda a: _BANDS * -(-a.width // _LANES) * (_INPUTS + 1),
            _FLOPS_OF_WINDOW + 2 * _INPUTS,
            lambda a: Sums(a.pixels, _INPUTS + 1),
        ),
        types=("float32",),
    ),
)
