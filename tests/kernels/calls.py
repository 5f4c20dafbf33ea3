"""Valid calls of the kernels, to be spoilt one argument at a time."""

import re

import numpy as np
import pytest

import cuda_kernels

IMAGE, WEIGHT, TAPS = (2, 6, 4, 5), (2, 3, 9, 20), (2, 6, 9, 20)


def _valid(kernel, **shapes):
    """A call with zeros of these shapes, but for what it is given."""

    def call(**changes):
        tensors = {
            name: np.zeros(shape, np.float32) for name, shape in shapes.items()
        }
        kernel(**(tensors | {"kernel_size": 3, "padding": 1} | changes))

    return call


call_aggregation = _valid(
    cuda_kernels.aggregation_forward, input=IMAGE, weight=WEIGHT, output=IMAGE
)
call_aggregation_backward = _valid(
    cuda_kernels.aggregation_backward,
    grad_output=IMAGE,
    input=IMAGE,
    weight=WEIGHT,
    grad_input=IMAGE,
    grad_weight=WEIGHT,
)
call_subtraction2 = _valid(
    cuda_kernels.subtraction2_forward, a=IMAGE, b=IMAGE, output=TAPS
)
call_subtraction2_backward = _valid(
    cuda_kernels.subtraction2_backward,
    grad_output=TAPS,
    grad_a=IMAGE,
    grad_b=IMAGE,
)

CALLS = {
    "aggregation_forward": call_aggregation,
    "aggregation_backward": call_aggregation_backward,
    "subtraction2_forward": call_subtraction2,
    "subtraction2_backward": call_subtraction2_backward,
}


def refused(call, message, **changes):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(**changes)
