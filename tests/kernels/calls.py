"""Valid calls of the kernels, to be spoilt one argument at a time."""

import re

import numpy as np
import pytest

import cuda_kernels


def call_aggregation(**changes):
    """A valid aggregation_forward of 4 x 5 images, but for the changes."""
    arguments = {
        "input": np.zeros((2, 6, 4, 5), np.float32),
        "weight": np.zeros((2, 3, 9, 20), np.float32),
        "output": np.zeros((2, 6, 4, 5), np.float32),
        "kernel_size": 3,
        "padding": 1,
    }
    cuda_kernels.aggregation_forward(**(arguments | changes))


def call_aggregation_backward(**changes):
    arguments = {
        "grad_output": np.zeros((2, 6, 4, 5), np.float32),
        "input": np.zeros((2, 6, 4, 5), np.float32),
        "weight": np.zeros((2, 3, 9, 20), np.float32),
        "grad_input": np.zeros((2, 6, 4, 5), np.float32),
        "grad_weight": np.zeros((2, 3, 9, 20), np.float32),
        "kernel_size": 3,
        "padding": 1,
    }
    cuda_kernels.aggregation_backward(**(arguments | changes))


def call_subtraction2(**changes):
    arguments = {
        "a": np.zeros((2, 6, 4, 5), np.float32),
        "b": np.zeros((2, 6, 4, 5), np.float32),
        "output": np.zeros((2, 6, 9, 20), np.float32),
        "kernel_size": 3,
        "padding": 1,
    }
    cuda_kernels.subtraction2_forward(**(arguments | changes))


def call_subtraction2_backward(**changes):
    arguments = {
        "grad_output": np.zeros((2, 6, 9, 20), np.float32),
        "grad_a": np.zeros((2, 6, 4, 5), np.float32),
        "grad_b": np.zeros((2, 6, 4, 5), np.float32),
        "kernel_size": 3,
        "padding": 1,
    }
    cuda_kernels.subtraction2_backward(**(arguments | changes))


CALLS = {
    "aggregation_forward": call_aggregation,
    "aggregation_backward": call_aggregation_backward,
    "subtraction2_forward": call_subtraction2,
    "subtraction2_backward": call_subtraction2_backward,
}


def refused(call, message, **changes):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(**changes)
