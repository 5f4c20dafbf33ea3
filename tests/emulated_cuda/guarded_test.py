"""Guarded copies are what the kernels would have been called with."""

import numpy as np
import pytest
import torch

from tests.emulated_cuda import _kernels, kernels
from tests.emulated_cuda.guarded import FIRST_OUTPUT, Guarded


class Recorder:
    """A module with one function, which keeps what it is called with."""

    __file__ = _kernels.__file__

    def __init__(self, work):
        self.work = work

    def op(self, x, output, workspace=None):
        self.work(x, output, workspace)

    op.__doc__ = "op(x: object, output: object, workspace: object) -> None\n"


def call(work, x, output, **extra):
    Guarded(Recorder(work), {"op": "output"}).op(x, output, **extra)


STRIDED = {
    "numpy": lambda: np.arange(60.0).reshape(3, 4, 5)[:, ::-2, 1:4],
    "transposed": lambda: np.arange(12, dtype="float32").reshape(3, 4).T,
    "torch": lambda: torch.arange(60.0).reshape(3, 4, 5)[1:, :, ::2],
    "bfloat16": lambda: torch.arange(24.0).bfloat16().reshape(4, 6)[:, 1:],
    "expanded": lambda: torch.arange(4.0).expand(3, 4),
}


@pytest.mark.parametrize("kind", STRIDED)
def test_copies_have_the_values_and_strides(kind):
    seen = []

    def work(x, output, _):
        seen.append(x.tolist())
        strides = x.stride() if isinstance(x, torch.Tensor) else x.strides
        seen.append(strides)
        output[...] = x

    x = STRIDED[kind]()
    output = np.zeros(x.shape) if isinstance(x, np.ndarray) else x * 0
    call(work, x, output)
    assert seen[0] == x.tolist() == output.tolist()
    assert seen[1] == (x.stride() if hasattr(x, "stride") else x.strides)


def test_outputs_begin_as_nan_and_workspaces_as_they_are():
    seen = []

    def work(x, output, workspace):
        seen.extend([output.copy(), workspace.copy()])
        output[:], workspace[:] = x, 2

    output, workspace = np.zeros(5), np.ones(3, "float32")
    call(work, np.arange(5.0), output, workspace=workspace)
    assert np.isnan(seen[0]).all()
    assert seen[1].tolist() == [1, 1, 1]
    assert output.tolist() == [0, 1, 2, 3, 4]
    assert workspace.tolist() == [2, 2, 2]


def test_what_overlaps_overlaps_in_the_copies():
    def work(x, output, workspace):
        output[0] = 5
        assert workspace.reshape(-1)[1] == 5
        assert x[0] == 1
        output[1] = 6

    memory = np.ones(6)
    workspace = memory[:4].reshape(2, 2)
    call(work, np.ones(1), memory[1:3], workspace=workspace)
    assert memory.tolist() == [1, 5, 6, 1, 1, 1]


@pytest.mark.parametrize("order", ["ascending"], indirect=True)
def test_copies_end_at_the_guard():
    def work(x, output, _):
        page = 4096
        end = x.__array_interface__["data"][0] + x.nbytes
        assert end % page == 0
        assert not np.shares_memory(x, output)
        output[:] = 0

    call(work, np.ones(7, "float32"), np.ones(3))


def test_unwritten_places_of_strided_outputs():
    def work(x, output, _):
        output[0] = 0

    memory = np.zeros((4, 6), "float32")
    with pytest.raises(
        RuntimeError, match=r"op: output must be written.* at 6 of 9 .*\[1, 0\]"
    ):
        call(work, np.ones(1), memory[:3, ::2])


def test_empty_tensors_are_passed_on():
    output = np.zeros((0, 3))
    call(lambda x, output, _: None, np.ones((2, 0)), output)


def test_functions_that_nobody_knows_are_refused():
    with pytest.raises(TypeError, match="op takes tensors and must be in"):
        Guarded(Recorder(print), {}).op(np.ones(1), np.ones(1))


def test_an_error_leaves_outputs_as_they_were():
    def work(x, output, _):
        output[:] = 0
        raise ValueError("x must be better")

    output = np.ones(2)
    with pytest.raises(ValueError, match="x must be better"):
        call(work, np.ones(1), output)
    assert output.tolist() == [1, 1]


def test_first_outputs_are_parameters():
    for name, first in FIRST_OUTPUT.items():
        assert f"{first}: " in getattr(kernels, name).__doc__
