"""The window's own checks, and the mirror of the image."""

import numpy as np
import pytest
import torch

from san.ops.window import Window, check_window, mirrored


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_numpy_integers_become_plain_ones(integer):
    window = Window(integer(3), integer(2), integer(1), integer(4))
    checked = check_window("op", window)
    assert checked == Window(3, 2, 1, 4)
    assert all(type(value) is int for value in checked[:4])


@pytest.mark.parametrize(
    "value",
    [0, 2**30, True, np.True_, 3.0, np.float64(3), np.int64(-1), "3", None],
)
def test_refuses_other_values(value):
    with pytest.raises(ValueError, match="op: kernel_size must be an integer"):
        check_window("op", Window(value))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_mirror_is_that_of_numpy(size):
    expected = np.pad(np.arange(size), 20, mode="reflect")
    positions = torch.arange(-20, size + 20)
    assert np.array_equal(mirrored(positions, size).numpy(), expected)


class Mirror(torch.nn.Module):
    def forward(self, x):
        return x[mirrored(torch.arange(-3, x.shape[0] + 3), x.shape[0])]


def test_mirror_exports_with_a_free_size():
    exported = torch.export.export(
        Mirror(),
        (torch.rand(5),),
        dynamic_shapes=({0: torch.export.Dim("size", min=2)},),
    )
    for size in (2, 3, 9):
        x = torch.rand(size)
        assert torch.equal(exported.module()(x), Mirror()(x))
