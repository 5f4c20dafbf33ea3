"""Each bad argument gives its message, and nothing crashes."""

import re
import sys

import numpy as np
import pytest

import cuda_kernels

HUGE_NUMBER = 10 ** (sys.get_int_max_str_digits() + 1)


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


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("aggregation_forward", "input"),
        ("aggregation_forward", "weight"),
        ("aggregation_forward", "output"),
        ("aggregation_backward", "grad_output"),
        ("aggregation_backward", "input"),
        ("aggregation_backward", "weight"),
        ("aggregation_backward", "grad_input"),
        ("aggregation_backward", "grad_weight"),
        ("subtraction2_forward", "a"),
        ("subtraction2_forward", "b"),
        ("subtraction2_forward", "output"),
        ("subtraction2_backward", "grad_output"),
        ("subtraction2_backward", "grad_a"),
        ("subtraction2_backward", "grad_b"),
    ],
)
class TestEveryTensor:
    """The rules that hold for each tensor argument of each op."""

    def refused(self, name, argument, rule, value):
        refused(
            CALLS[name], f"{name}: {argument} must {rule}", **{argument: value}
        )

    @pytest.mark.parametrize("value", [7, "text", [[1.0]], object(), np.array])
    def test_is_a_tensor(self, name, argument, value):
        rule = "be a tensor that exports DLPack, got "
        self.refused(name, argument, rule, value)

    @pytest.mark.parametrize("shape", [(), (6,), (2, 6, 20), (2, 6, 4, 5, 1)])
    def test_has_four_dimensions(self, name, argument, shape):
        rule = f"have 4 dimensions, got {len(shape)} dimensions"
        self.refused(name, argument, rule, np.zeros(shape, np.float32))

    @pytest.mark.parametrize("dtype", [np.int32, np.complex64, np.bool_])
    def test_is_of_a_known_type(self, name, argument, dtype):
        rule = "be float32, float64, float16 or bfloat16, got DLPack type code"
        value = np.zeros((2, 6, 4, 5), dtype)
        self.refused(name, argument, rule, value)

    def test_is_dense(self, name, argument):
        rule = "be dense"
        value = np.zeros((5, 4, 6, 2), np.float32).transpose()
        self.refused(name, argument, rule, value)
        self.refused(name, argument, rule, value[..., ::-1])
        spread = np.broadcast_to(np.float32(0), (2, 6, 4, 5))
        self.refused(name, argument, "be", spread)

    def test_is_aligned(self, name, argument):
        memory = bytearray(2 * 6 * 4 * 5 * 4 + 1)
        value = np.frombuffer(memory, np.float32, offset=1, count=240)
        rule = "be aligned to its element size, got a misaligned data pointer"
        self.refused(name, argument, rule, value.reshape(2, 6, 4, 5))

    def test_is_of_one_type_with_the_others(self, name, argument):
        value = np.zeros((2, 6, 4, 5))
        with pytest.raises(ValueError, match=f"^{name}: .* must have the "):
            CALLS[name](**{argument: value})

    def test_has_the_right_shape(self, name, argument):
        value = np.zeros((2, 5, 7, 1), np.float32)
        with pytest.raises(ValueError, match=f"^{name}: .* must have .* got"):
            CALLS[name](**{argument: value})

    @pytest.mark.parametrize(
        "shape", [(0, 2**30, 2**29, 1), (0, 6, 2**58, 1), (2**58, 0, 4, 1)]
    )
    def test_is_not_empty_and_vast(self, name, argument, shape):
        value = np.empty(shape, np.float32)
        with pytest.raises(ValueError, match=f"^{name}: .* must .* got"):
            CALLS[name](**{argument: value})


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("aggregation_forward", "output"),
        ("aggregation_backward", "grad_input"),
        ("aggregation_backward", "grad_weight"),
        ("subtraction2_forward", "output"),
        ("subtraction2_backward", "grad_a"),
        ("subtraction2_backward", "grad_b"),
    ],
)
def test_outputs_are_writable(name, argument):
    value = np.zeros((2, 6, 4, 5), np.float32)
    value.flags.writeable = False
    rule = f"{name}: {argument} must be writable, got a read-only tensor"
    refused(CALLS[name], rule, **{argument: value})


def test_inputs_may_be_read_only():
    value = np.zeros((2, 6, 4, 5), np.float32)
    value.flags.writeable = False
    call_aggregation(input=value)
    call_subtraction2(a=value, b=value)


def test_outputs_share_no_memory():
    memory = np.zeros(2 * 6 * 9 * 20 + 240, np.float32)
    image = memory[:240].reshape(2, 6, 4, 5)
    behind = memory[239:479].reshape(2, 6, 4, 5)
    refused(
        call_aggregation,
        "aggregation_forward: output must not share memory with input, got"
        " overlapping tensors",
        input=image,
        output=behind,
    )
    refused(
        call_aggregation_backward,
        "aggregation_backward: grad_input must not share memory with"
        " grad_output",
        grad_output=behind,
        grad_input=image,
    )
    weight = memory[200:1280].reshape(2, 3, 9, 20)
    refused(
        call_aggregation_backward,
        "aggregation_backward: grad_weight must not share memory with"
        " grad_input",
        grad_weight=weight,
        grad_input=image,
    )
    refused(
        call_subtraction2_backward,
        "subtraction2_backward: grad_b must not share memory with grad_a",
        grad_a=image,
        grad_b=behind,
    )
    call_aggregation(input=image, output=memory[240:480].reshape(2, 6, 4, 5))


def test_shapes_name_the_rule_and_both_shapes():
    refused(
        call_aggregation,
        "aggregation_forward: weight must have shape [N, Cw, kernel_size^2,"
        " H_out * W_out] = [2, 3, 9, 20], got [2, 3, 9, 12]",
        weight=np.zeros((2, 3, 9, 12), np.float32),
    )
    refused(
        call_aggregation,
        "aggregation_forward: output must have shape [N, C, H_out, W_out] ="
        " [2, 6, 4, 5], got [2, 6, 4, 4]",
        output=np.zeros((2, 6, 4, 4), np.float32),
    )
    refused(
        call_subtraction2,
        "subtraction2_forward: b must have the shape of a, [2, 6, 4, 5], got"
        " [2, 6, 5, 4]",
        b=np.zeros((2, 6, 5, 4), np.float32),
    )


@pytest.mark.parametrize("weight_channels", [0, 4, 12])
def test_weight_channels_divide_the_channels(weight_channels):
    refused(
        call_aggregation,
        "aggregation_forward: weight must have a number of channels that"
        f" divides input's, 6, got {weight_channels}",
        weight=np.zeros((2, weight_channels, 9, 20), np.float32),
    )


def test_types_agree():
    refused(
        call_aggregation,
        "aggregation_forward: weight must have the dtype of input, float32,"
        " got float16",
        weight=np.zeros((2, 3, 9, 20), np.float16),
    )


def test_images_are_not_empty():
    refused(
        call_aggregation,
        "aggregation_forward: input must have a height and width from 1 to"
        " 2^31 - 1, got 0 x 5",
        input=np.zeros((2, 6, 0, 5), np.float32),
    )


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


class Exporter:
    """Speaks DLPack as it is told to."""

    def __init__(self, capsule, device=(1, 0)):
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **options):
        return self.capsule() if callable(self.capsule) else self.capsule

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize(
    ("exporter", "value"),
    [
        (Exporter(None), "Exporter without a fresh DLPack capsule"),
        (Exporter(5), "Exporter without a fresh DLPack capsule"),
        (Exporter(lambda: 1 / 0), "Exporter (division by zero)"),
        (Exporter(None, device="cpu"), "Exporter with a malformed"),
        (Exporter(None, device=(1,)), "Exporter with a malformed"),
        (Exporter(None, device=None), "Exporter ("),
    ],
)
def test_broken_exporters(exporter, value):
    refused(
        call_aggregation,
        "aggregation_forward: input must be a tensor that exports DLPack, got "
        + value,
        input=exporter,
    )


def test_a_used_capsule():
    array = np.zeros((2, 6, 4, 5), np.float32)
    capsule = array.__dlpack__()
    np.from_dlpack(Exporter(capsule))
    refused(
        call_aggregation,
        "aggregation_forward: input must be a tensor that exports DLPack, got"
        " Exporter without a fresh DLPack capsule",
        input=Exporter(capsule),
    )


def test_exporters_from_before_dlpack_1():
    class Old(Exporter):
        def __dlpack__(self):
            return self.capsule

    array = np.ones((2, 6, 4, 5), np.float32)
    output = np.zeros_like(array)
    call_aggregation(
        input=Old(array.__dlpack__()),
        weight=np.ones((2, 3, 9, 20), np.float32),
        output=output,
    )
    assert (output == 9).all()


def test_interrupts_pass_through():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_aggregation(input=Exporter(interrupt))


def test_nothing_is_written_before_the_checks():
    output = np.full((2, 6, 4, 5), np.nan, np.float32)
    with pytest.raises(ValueError, match="stride"):
        call_aggregation(output=output, stride=0)
    assert np.isnan(output).all()
