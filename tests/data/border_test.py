import numpy as np
import pytest

from san.data import border


def gains_by_definition(start, end, length, size):
    """One over the part of the triangle's weight that lies in the image."""
    scale = (end - start) / size
    width = max(scale, 1)
    taps = np.arange(-1000, 1000)
    result = []
    for pixel in range(size):
        centre = start + (pixel + 0.5) * scale
        weights = np.maximum(0, 1 - abs(taps + 0.5 - centre) / width)
        inside = weights[(taps >= 0) & (taps < length)]
        result.append(weights.sum() / inside.sum())
    return result


@pytest.mark.parametrize(
    ("start", "end", "length", "size"),
    [
        (0, 8, 8, 4),
        (0, 100, 100, 7),
        (0, 3, 3, 11),
        (0, 1, 1, 5),
        (2.5, 40.25, 41, 16),
        (0, 64, 64, 64),
        (30, 60, 100, 10),
    ],
)
def test_gains_equal_their_definition(start, end, length, size):
    found = border.gains(
        np.array([start]), np.array([end]), np.array([length]), size
    )
    expected = gains_by_definition(start, end, length, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_gains_by_hand():
    # Half-width 2 around 1: weights 1/8 at -0.5, then 3/8, 3/8, 1/8.
    found = border.gains(np.array([0]), np.array([8]), np.array([8]), 4)
    np.testing.assert_allclose(found, [[8 / 7, 1, 1, 8 / 7]], rtol=1e-6)


def test_reach_covers_the_filter():
    scale = np.array([[0.1, 1.0], [2.0, 7.3]])
    assert border.reach(scale).tolist() == [[2, 2], [3, 9]]
