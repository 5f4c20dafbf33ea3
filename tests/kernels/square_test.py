"""The input's resize against PIL and by hand."""

import re

import numpy as np
import pytest
from PIL import Image

import cuda_kernels


@pytest.fixture(params=cuda_kernels.instruction_sets(), autouse=True)
def instruction_set(request):
    cuda_kernels.use_instruction_set(request.param)
    yield
    cuda_kernels.use_instruction_set(cuda_kernels.instruction_sets()[-1])


def noise(*size):
    random = np.random.default_rng(size)
    return random.integers(0, 256, (*size, 3), np.uint8)


def square(window, side, **changes):
    """Grey levels [side, side, 3] of the whole window, but for the changes."""
    output = np.full((3, side, side), np.nan, np.float32)
    arguments = {
        "scales": (window.shape[0] / side, window.shape[1] / side),
        "corner": (0, 0),
        "mirrored": False,
        "shift": (0, 0, 0),
        "factor": (1, 1, 1),
    }
    cuda_kernels.square(window, output, **(arguments | changes))
    return output.transpose(1, 2, 0)


def resized_by_pil(image, height, width):
    """Rows first; in one call PIL takes columns first if that is less work."""
    result = Image.fromarray(image)
    for size in ((width, image.shape[0]), (width, height)):
        result = result.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(result, np.float32)


def test_by_hand():
    # Triangles of half-width 2 around 1 and 3: 3, 3, 1 over 7.
    levels = np.array([0, 70, 140, 210], np.uint8)
    window = np.repeat(levels[:, None, None], 3, axis=2) * np.ones(
        (1, 4, 1), np.uint8
    )
    found = square(window, 2)
    np.testing.assert_array_equal(found[:, :, 1], [[50, 50], [160, 160]])
    np.testing.assert_array_equal(
        square(window, 4, shift=(0, 70, 0), factor=(1, 0.5, 2))[:, 0],
        [[0, -35, 0], [70, 0, 140], [140, 35, 280], [210, 70, 420]],
    )


@pytest.mark.parametrize("side", [1, 3, 4, 17, 32, 65, 224])
@pytest.mark.parametrize(
    "size",
    [
        (1, 1),
        (1, 9),
        (300, 1),
        (2, 3),
        (17, 17),
        (31, 33),
        (64, 130),
        (233, 150),
        (41, 900),
        (1400, 77),
    ],
)
def test_equals_pil(size, side):
    window = noise(*size)
    expected = resized_by_pil(window, side, side)
    found = square(window, side)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        square(window, side, mirrored=True), expected[:, ::-1]
    )
    at_once = Image.fromarray(window).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    assert np.abs(found - np.asarray(at_once, np.float32)).max() <= 1


@pytest.mark.parametrize("corner", [(0, 0), (5, 3), (14, 9)])
@pytest.mark.parametrize(
    "size", [(70, 52), (29, 40), (41, 41), (500, 300), (12, 100)]
)
def test_squares_inside(size, corner):
    image = noise(*size)
    side, resized = 23, (37, 32)
    scales = np.array(size) / resized
    top, left = corner
    expected = resized_by_pil(image, *resized)[top:, left:][:side, :side]
    options = {"scales": scales.tolist(), "corner": corner}
    np.testing.assert_array_equal(square(image, side, **options), expected)
    np.testing.assert_array_equal(
        square(image, side, mirrored=True, **options), expected[:, ::-1]
    )
    # What the filter does not reach need not be there.
    reach = np.ceil(np.add(corner, side) * scales + np.maximum(scales, 1))
    rows, columns = np.minimum(reach, size).astype(int)
    window = image[:rows, :columns].copy()
    np.testing.assert_array_equal(square(window, side, **options), expected)


def test_only_the_output_is_written():
    window = noise(20, 30)
    before = window.copy()
    output = np.full((5, 7, 7), -1, np.float32)
    arguments = {
        "scales": (20 / 7, 30 / 7),
        "corner": (0, 0),
        "mirrored": False,
        "shift": (0, 0, 0),
        "factor": (1, 1, 1),
    }
    cuda_kernels.square(window, output[1:4], **arguments)
    expected = square(window, 7).transpose(2, 0, 1)
    np.testing.assert_array_equal(output[1:4], expected)
    assert (output[[0, 4]] == -1).all()
    np.testing.assert_array_equal(window, before)


GOOD = {
    "window": np.zeros((6, 8, 3), np.uint8),
    "output": np.zeros((3, 4, 4), np.float32),
    "scales": (1.5, 2.0),
    "corner": (0, 0),
    "mirrored": False,
    "shift": (0, 0, 0),
    "factor": (1, 1, 1),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"window": np.zeros((6, 8, 4), np.uint8)},
            "window must be uint8 [height, width, 3], got B [6, 8, 4]",
        ),
        (
            {"window": np.zeros((6, 8, 3), np.float32)},
            "window must be uint8 [height, width, 3], got f [6, 8, 3]",
        ),
        (
            {"window": np.zeros((6, 16, 3), np.uint8)[:, ::2]},
            "window must be dense and row-major, got strides [48, 6, 1]",
        ),
        (
            {"window": np.zeros((0, 8, 3), np.uint8)},
            "window must have a height and width from 1 to 2^30, got 0",
        ),
        (
            {"output": np.zeros((3, 4, 5), np.float32)},
            "output must be float32 [3, side, side], side from 1 to 2^30,"
            " got f [3, 4, 5]",
        ),
        (
            {"output": np.zeros((3, 0, 0), np.float32)},
            "output must be float32 [3, side, side], side from 1 to 2^30,"
            " got f [3, 0, 0]",
        ),
        (
            {"output": np.zeros((4, 4), np.float32)},
            "output must be float32 [3, side, side], side from 1 to 2^30,"
            " got f [4, 4]",
        ),
        ({"scales": (0, 2)}, "scales must be above 0, got 0.000000"),
        ({"scales": (1.5, np.nan)}, "scales must be above 0, got nan"),
        (
            {"corner": (-1, 0)},
            "corner must lie in the resized window with the whole square,"
            " got -1",
        ),
        (
            {"corner": (0, 1)},
            "corner must lie in the resized window with the whole square,"
            " got 1",
        ),
    ],
)
def test_errors(changes, message):
    cuda_kernels.square(**GOOD)
    with pytest.raises(ValueError, match=re.escape(f"square: {message}")):
        cuda_kernels.square(**(GOOD | changes))


def test_a_read_only_output():
    output = np.zeros((3, 4, 4), np.float32)
    output.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        cuda_kernels.square(**(GOOD | {"output": output}))
