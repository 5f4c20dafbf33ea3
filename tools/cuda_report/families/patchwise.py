"""Entries of the patchwise attention's kernels.

Those of float32. Half types are computed by tensor cores, by kernels that have
no entries yet: what they take is not modelled.
"""

from tools.cuda_report.entries import Entry
from tools.cuda_report.families.patchwise_launch import (
    CENTRE_ROWS,
    COLUMNS,
    STRIDE,
    centre_bytes,
    chunks,
    core_flops,
    core_forward,
    core_forward_bytes,
    core_weight_gradients,
    gradient_bytes,
    hidden_flops,
    hidden_forward,
    hidden_forward_bytes,
    hidden_gradient_bytes,
    hidden_gradients,
    hidden_weight_bytes,
    tap_gradients,
    taps_bytes,
    value_bytes,
    value_gradients,
    weight_blocks,
    work,
)
from tools.cuda_report.families.patchwise_loops import (
    CENTRE_GRADIENTS,
    CORE_FORWARD,
    CORE_WEIGHT_GRADIENTS,
    HIDDEN_FORWARD,
    HIDDEN_GRADIENTS,
    HIDDEN_WEIGHT_GRADIENTS,
    TAP_GRADIENTS,
    VALUE_GRADIENTS,
)

_GROUP = "patchwise core"
_TRAINING = {"training": 1}
_BOTH = {"forward": 1, "training": 1}

ENTRIES = (
    Entry(
        "patchwise.hidden_forward<float>",
        "forward: hidden layer",
        _GROUP,
        _BOTH,
        HIDDEN_FORWARD,
        work(
            hidden_forward,
            hidden_forward_bytes,
            lambda a: 2 * a.R + a.G,
            hidden_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.core_forward<float>",
        "forward: weights and aggregation",
        _GROUP,
        _BOTH,
        CORE_FORWARD,
        work(
            core_forward,
            core_forward_bytes,
            lambda a: a.G + 2 * a.M,
            core_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.tap_gradients<float>",
        "gradients of psi, scale and shift",
        _GROUP,
        _TRAINING,
        TAP_GRADIENTS,
        work(
            tap_gradients,
            taps_bytes,
            lambda a: 2 * a.R + a.G,
            hidden_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.hidden_backward.weight_gradients<float>",
        "gradient of the hidden layer's weight",
        _GROUP,
        _TRAINING,
        HIDDEN_WEIGHT_GRADIENTS,
        work(
            chunks(lambda a: a.R * weight_blocks(a), 256, lambda a: a.K),
            hidden_weight_bytes,
            lambda a: a.R + a.G,
            hidden_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.centre_gradients<float>",
        "gradients of phi and its parameters",
        _GROUP,
        _TRAINING,
        CENTRE_GRADIENTS,
        work(
            chunks(
                lambda a: -(-a.R // CENTRE_ROWS) * weight_blocks(a),
                128,
                lambda a: min(a.R, CENTRE_ROWS),
            ),
            centre_bytes,
            lambda a: 2 * a.R + a.G,
            lambda a: 4 * a.G * a.R,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.hidden_gradients<float>",
        "gradient of hidden",
        _GROUP,
        _TRAINING,
        HIDDEN_GRADIENTS,
        work(
            hidden_gradients,
            hidden_gradient_bytes,
            lambda a: a.G + 2 * a.M,
            core_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.core_backward.weight_gradients<float>",
        "gradients of the core's weight and bias",
        _GROUP,
        _TRAINING,
        CORE_WEIGHT_GRADIENTS,
        work(
            core_weight_gradients,
            lambda a: gradient_bytes(a, 128, COLUMNS * STRIDE),
            lambda a: a.G + 2 * a.M,
            core_flops,
        ),
        types=("float32",),
    ),
    Entry(
        "patchwise.value_gradients<float>",
        "gradient of value",
        _GROUP,
        _TRAINING,
        VALUE_GRADIENTS,
        work(
            value_gradients,
            value_bytes,
            lambda a: a.G + 2 * a.M,
            core_flops,
        ),
        types=("float32",),
    ),
)
