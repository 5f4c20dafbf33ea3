"""The operators in float64 NumPy, written from their definition.

For comparison in the tests only: slow, and sharing no code or index formula
with the compiled kernels (padding is numpy.pad's own).
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Window:
    """A square window; `options` are the kernels' keyword arguments."""

    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    padding_mode: str = "reflect"

    @property
    def options(self) -> dict[str, int | str]:
        return dataclasses.asdict(self)

    def outputs(self, size: int) -> int:
        footprint = self.dilation * (self.kernel_size - 1) + 1
        return (size + 2 * self.padding - footprint) // self.stride + 1

    def padded(self, image: NDArray) -> NDArray:
        """Pads the last two dimensions."""
        width = [(0, 0)] * (image.ndim - 2) + [(self.padding,) * 2] * 2
        mode = {"reflect": "reflect", "zeros": "constant"}[self.padding_mode]
        return np.pad(image, width, mode=mode)

    def patches(self, image: NDArray) -> NDArray:
        """The taps of each output: [N, C, H, W] -> [N, C, K, P]."""
        padded = self.padded(image)
        height, width = (self.outputs(size) for size in image.shape[2:])
        taps = []
        for kh in range(self.kernel_size):
            for kw in range(self.kernel_size):
                top, left = kh * self.dilation, kw * self.dilation
                taps.append(
                    padded[:, :, top :: self.stride, left :: self.stride][
                        :, :, :height, :width
                    ]
                )
        return np.stack(taps, axis=2).reshape(
            *image.shape[:2], len(taps), height * width
        )

    def patches_transposed(self, taps: NDArray, image_shape: tuple) -> NDArray:
        """The transpose of `patches`, by adding each tap where it came from."""
        numbers = np.arange(np.prod(image_shape[2:], dtype=int)) + 1
        sources = self.patches(numbers.reshape(1, 1, *image_shape[2:])).reshape(
            -1
        )
        flat = taps.reshape(*image_shape[:2], -1)
        image = np.zeros((*image_shape[:2], numbers.size + 1))
        for n in range(image_shape[0]):
            for c in range(image_shape[1]):
                np.add.at(image[n, c], sources, flat[n, c])
        return image[:, :, 1:].reshape(image_shape)


def _weight_of_channel(weight: NDArray, channels: int) -> NDArray:
    """[N, Cw, K, P] -> [N, C, K, P]: channel c has weight channel c mod Cw."""
    return weight[:, np.arange(channels) % weight.shape[1]]


def aggregation(input: NDArray, weight: NDArray, window: Window) -> NDArray:
    """Returns the output, [N, C, H_out, W_out]."""
    batch, channels, height, width = input.shape
    weights = _weight_of_channel(weight, channels)
    output = (weights * window.patches(input)).sum(axis=2)
    return output.reshape(
        batch, channels, window.outputs(height), window.outputs(width)
    )


def aggregation_gradients(
    grad_output: NDArray, input: NDArray, weight: NDArray, window: Window
) -> tuple[NDArray, NDArray]:
    """Returns the gradients of input and weight."""
    batch, channels = input.shape[:2]
    groups = weight.shape[1]
    grad = grad_output.reshape(batch, channels, 1, -1)
    grad_input = window.patches_transposed(
        grad * _weight_of_channel(weight, channels), input.shape
    )
    products = grad * window.patches(input)
    grad_weight = np.stack(
        [products[:, g::groups].sum(axis=1) for g in range(groups)], axis=1
    )
    return grad_input, grad_weight


def subtraction2(a: NDArray, b: NDArray, window: Window) -> NDArray:
    """Returns the output, [N, C, K, P]."""
    centre = (window.kernel_size - 1) // 2 * (window.kernel_size + 1)
    return window.patches(a)[:, :, [centre]] - window.patches(b)


def subtraction2_gradients(
    grad_output: NDArray, image_shape: tuple, window: Window
) -> tuple[NDArray, NDArray]:
    """Returns the gradients of a and b."""
    centre = (window.kernel_size - 1) // 2 * (window.kernel_size + 1)
    at_centre = np.zeros(grad_output.shape)
    at_centre[:, :, centre] = grad_output.sum(axis=2)
    return (
        window.patches_transposed(at_centre, image_shape),
        window.patches_transposed(-grad_output, image_shape),
    )
