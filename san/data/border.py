"""How PIL's bilinear filter treats the border of an image.

Where the filter reaches past the border, PIL drops what lies outside and
makes the remaining weights sum to one; DALI repeats the border's pixels, up
to a dozen grey levels away. So the pipeline surrounds the image by zeros,
resizes, and multiplies by what is computed here. No pixels are touched here.
"""

import numpy as np


def reach(scale: np.ndarray) -> np.ndarray:
    """How many pixels the filter can reach past the border: int32 [n, 2].

    Args:
      scale: [n, 2], source pixels per output pixel, by axis.
    """
    return (np.ceil(np.maximum(scale, 1)) + 1).astype(np.int32)


def gains(
    start: np.ndarray, end: np.ndarray, length: np.ndarray, size: int
) -> np.ndarray:
    """One over the filter's weight inside the image, along one axis.

    The filter is a triangle around the output pixel's centre, as wide to
    each side as an output pixel, but at least one source pixel.

    Args:
      start: [n], where the resized region begins, in source pixels.
      end: [n], where it ends.
      length: [n], of the source image.
      size: number of output pixels.

    Returns:
      float32 [n, size]; ones but for the pixels near the border.
    """
    scale = ((end - start) / size)[:, None]
    centre = start[:, None] + (np.arange(size) + 0.5) * scale
    width = np.maximum(scale, 1)
    past_pixel = (centre - 0.5) % 1
    total = _tail(past_pixel, width) + _tail(1 - past_pixel, width)
    outside = _tail(centre + 0.5, width)
    outside += _tail(length[:, None] - centre + 0.5, width)
    return (total / (total - outside)).astype(np.float32)


def _tail(distance: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Sum of the triangle's weights at distance, distance + 1, ..."""
    taps = np.maximum(0, np.ceil(width - distance))
    return taps - (taps * distance + taps * (taps - 1) / 2) / width
