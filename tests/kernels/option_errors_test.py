"""Each bad option gives its message, and nothing is written."""

import re
import sys

import numpy as np
import pytest

import cuda_kernels
from tests.kernels.calls import (
    CALLS,
    call_aggregation,
    call_subtraction2,
    refused,
)

HUGE_NUMBER = 10 ** (sys.get_int_max_str_digits() + 1)


@pytest.mark.parametrize("call", CALLS.values())
def test_the_unchanged_call_is_valid(call):
    call()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("option", ["kernel_size", "stride", "dilation"])
@pytest.mark.parametrize(
    "value",
    [0, -1, 2**30, 2**40, 2**62, -(2**63), 2**64, 3.0, "3", None, [3]],
)
def test_sizes_are_positive_integers(name, option, value):
    rule = f"{option} must be an integer from 1 to 1073741823, got {value!r}"
    refused(CALLS[name], f"{name}: {rule}", **{option: value})


@pytest.mark.parametrize("value", [-1, 2**30, 2**63, 1.5, None, object])
def test_padding_is_a_natural_number(value):
    rule = f"padding must be an integer from 0 to 1073741823, got {value!r}"
    refused(call_aggregation, f"aggregation_forward: {rule}", padding=value)


def test_numbers_too_long_to_print():
    rule = (
        "stride must be an integer from 1 to 1073741823, got an unprintable int"
    )
    refused(
        call_aggregation, f"aggregation_forward: {rule}", stride=HUGE_NUMBER
    )


@pytest.mark.parametrize("value", [-1, 2**63, "default", None])
def test_stream_is_a_natural_number(value):
    rule = "stream must be an integer from 0 to 9223372036854775807"
    refused(
        call_subtraction2,
        f"subtraction2_forward: {rule}, got {value!r}",
        stream=value,
    )


def test_unknown_names_come_with_the_nearest():
    refused(
        call_aggregation,
        "aggregation_forward: padding_mode must be one of 'reflect', 'zeros',"
        " got 'reflective' (did you mean 'reflect'?)",
        padding_mode="reflective",
    )
    refused(
        call_aggregation,
        "aggregation_forward: implementation must be one of 'simple', 'fast',"
        " got 7",
        implementation=7,
    )
    refused(
        cuda_kernels.use_instruction_set,
        "use_instruction_set: name must be one of 'baseline'",
        name="altivec",
    )


def test_instruction_sets_ascend():
    names = cuda_kernels.instruction_sets()
    assert names == ["baseline", "avx2", "avx512"][: len(names)]


@pytest.mark.parametrize("name", CALLS)
def test_images_are_not_smaller_than_the_footprint(name):
    with pytest.raises(ValueError) as caught:
        CALLS[name](kernel_size=7, dilation=2**29)
    assert re.fullmatch(
        rf"{name}: (input|a|grad_a) must be at least as large as the footprint,"
        r" dilation \* \(kernel_size - 1\) \+ 1 = 3221225473, after padding by"
        r" 1, got 4 x 5",
        str(caught.value),
    )


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2**30 - 1, "padding": 2**30 - 1},
        {"kernel_size": 1, "padding": 2**30 - 1},
        {"stride": 2**30 - 1, "padding": 2**30 - 1},
        {"kernel_size": 2**15, "dilation": 2**15, "padding": 2**30 - 1},
    ],
)
def test_huge_options_meet_the_shape_check(name, options):
    with pytest.raises(ValueError, match=f"^{name}: .* must have shape"):
        CALLS[name](**options)


def test_nothing_is_written_before_the_checks():
    output = np.full((2, 6, 4, 5), np.nan, np.float32)
    with pytest.raises(ValueError, match="stride"):
        call_aggregation(output=output, stride=0)
    assert np.isnan(output).all()
