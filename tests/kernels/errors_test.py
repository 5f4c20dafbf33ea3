"""Each bad tensor gives its message, and nothing crashes."""

import numpy as np
import pytest

from tests.kernels.calls import (
    CALLS,
    call_aggregation,
    call_aggregation_backward,
    call_subtraction2,
    call_subtraction2_backward,
    refused,
)

# The arguments that may be in channels-last.
IMAGES = {
    "aggregation_forward": ("input", "output"),
    "aggregation_backward": ("grad_output", "input", "grad_input"),
    "subtraction2_forward": ("a", "b"),
    "subtraction2_backward": ("grad_a", "grad_b"),
}


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
        rule = "be dense and row-major (contiguous), got shape"
        if argument in IMAGES[name]:
            rule = (
                "be dense, in row-major order (contiguous) or in "
                "channels-last, got shape"
            )
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
