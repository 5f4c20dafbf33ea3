"""The sliding window that all operators share: sizes, mirror and checks.

The operators themselves are in `aggregation` and `subtraction`.
"""

import numbers
import operator
from typing import Any, NamedTuple

import torch

PADDING_MODES = ("reflect", "zeros")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# The kernels' own limit, far from overflow.
_MAX_INTEGER = 2**30 - 1


class Window(NamedTuple):
    """A square footprint of kernel_size**2 taps that moves over an image."""

    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    padding_mode: str = "reflect"

    @property
    def num_taps(self) -> int:
        """Taps in the footprint, row-major: tap = kh * kernel_size + kw."""
        return self.kernel_size * self.kernel_size

    def output_size(self, size: int) -> int:
        """Number of places the window takes along an axis of `size` pixels."""
        span = self.dilation * (self.kernel_size - 1) + 1
        return (size + 2 * self.padding - span) // self.stride + 1


def mirrored(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Reflects positions into [0, size) without repeating the edge pixel.

    Any position, of an axis of any size: as numpy.pad has it, and unlike
    torch's own padding.
    """
    # An exporter with free sizes takes no max() and no % of a symbolic size.
    period = torch.sym_max(2 * (size - 1), 1)
    positions = torch.remainder(positions, positions.new_full((), period))
    return torch.where(positions < size, positions, period - positions)


def check_window(op: str, window: Window) -> Window:
    """The window in plain integers, where it had NumPy's.

    Raises:
      ValueError: unless the window itself is sound.
    """
    window = Window(
        _checked_integer(op, "kernel_size", window.kernel_size, 1),
        _checked_integer(op, "stride", window.stride, 1),
        _checked_integer(op, "padding", window.padding, 0),
        _checked_integer(op, "dilation", window.dilation, 1),
        window.padding_mode,
    )
    if window.padding_mode not in PADDING_MODES:
        raise ValueError(
            f"{op}: padding_mode must be one of {', '.join(PADDING_MODES)}, "
            f"got {window.padding_mode!r}"
        )
    return window


def check_image(op: str, name: str, image: Any, window: Window) -> None:
    """Raises ValueError unless `window` can move over image [N, C, H, W]."""
    check_tensor(op, name, image)
    height, width = image.shape[2:]
    if height < 1 or width < 1:
        raise ValueError(
            f"{op}: {name} must have a height and a width of at least 1, "
            f"got shape {list(image.shape)}"
        )
    if window.output_size(height) < 1 or window.output_size(width) < 1:
        raise ValueError(
            f"{op}: {name} must be at least as large as the dilated kernel "
            f"after padding, got shape {list(image.shape)} with {window}"
        )


def check_tensor(op: str, name: str, tensor: Any) -> None:
    """Raises ValueError unless this is a 4-d tensor the kernels compute on."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(
            f"{op}: {name} must be a torch.Tensor, got {type(tensor).__name__}"
        )
    if tensor.dim() != 4:
        raise ValueError(
            f"{op}: {name} must have 4 dimensions, "
            f"got shape {list(tensor.shape)}"
        )
    if tensor.dtype not in DTYPES:
        raise ValueError(
            f"{op}: {name} must be float32, float64, float16 or bfloat16, "
            f"got {tensor.dtype}"
        )


def check_alike(
    op: str, name: str, tensor: torch.Tensor, other: str, like: torch.Tensor
) -> None:
    """Raises ValueError unless both have one device and will have one dtype."""
    if tensor.device != like.device:
        raise ValueError(
            f"{op}: {name} must be on the device of {other}, {like.device}, "
            f"got {tensor.device}"
        )
    # Autocast gives both the same dtype later.
    if tensor.dtype != like.dtype and not torch.is_autocast_enabled(
        like.device.type
    ):
        raise ValueError(
            f"{op}: {name} must have the dtype of {other}, {like.dtype}, "
            f"got {tensor.dtype}"
        )


def _checked_integer(op: str, name: str, value: Any, minimum: int) -> int:
    # A bool is an int to Python, and never what was meant.
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        integer = value if isinstance(value, int) else operator.index(value)
        if minimum <= integer <= _MAX_INTEGER:
            return integer
    raise ValueError(
        f"{op}: {name} must be an integer from {minimum} to {_MAX_INTEGER}, "
        f"got {value!r}"
    )
