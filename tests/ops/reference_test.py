"""The reference against loops over numpy.pad: the definition, spelled out."""

import numpy as np
import pytest
import torch

from san.ops import reference
from tests.ops.windows import WINDOWS, aggregation_inputs, subtraction2_inputs


def pad(image, padding, padding_mode):
    mode = "reflect" if padding_mode == "reflect" else "constant"
    widths = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return np.pad(image.detach().numpy(), widths, mode=mode)


def taps(
    image, kernel_size, stride=1, padding=0, dilation=1, padding_mode="reflect"
):
    """All taps of all windows, and the centres: [N, C, K, P], [N, C, P]."""
    padded = pad(image, padding, padding_mode)
    span = dilation * (kernel_size - 1) + 1
    middle = (kernel_size - 1) // 2 * dilation
    places = [
        (row, column)
        for row in range(0, padded.shape[2] - span + 1, stride)
        for column in range(0, padded.shape[3] - span + 1, stride)
    ]
    windows = [
        padded[:, :, row : row + span : dilation, column:][
            ..., :span:dilation
        ].reshape(*padded.shape[:2], -1)
        for row, column in places
    ]
    centres = [padded[:, :, row + middle, col + middle] for row, col in places]
    return np.stack(windows, axis=3), np.stack(centres, axis=2)


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_aggregation_follows_its_definition(size, window):
    image, weight = aggregation_inputs(size, **window)
    values, _ = taps(image, **window)
    expected = [
        (weight.detach().numpy()[:, channel % 2] * values[:, channel]).sum(1)
        for channel in range(4)
    ]
    output = reference.aggregation(image, weight, **window)
    torch.testing.assert_close(
        output.flatten(2), torch.tensor(np.stack(expected, axis=1))
    )


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_subtraction2_follows_its_definition(size, window):
    a, b = subtraction2_inputs(size)
    _, centres = taps(a, **window)
    values, _ = taps(b, **window)
    output = reference.subtraction2(a, b, **window)
    torch.testing.assert_close(
        output, torch.tensor(centres[:, :, None] - values)
    )


def test_nothing_outside_the_image_is_read_as_zeros():
    image = torch.full((1, 1, 2, 2), torch.inf)
    output = reference.subtraction2(
        torch.zeros(1, 1, 2, 2), image, 3, padding=1, padding_mode="zeros"
    )
    assert output.isinf().sum() == 16
    assert not output.isnan().any()
