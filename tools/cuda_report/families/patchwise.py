"""Entries of the patchwise attention's kernels on tensor cores.

They are all that SAN10 launches: of bfloat16, and of float32 split into two
TF32. What writes parameters in the order of their use takes less than a
microsecond and is left out.
"""

from tools.cuda_report.entries import DataType, Entry
from tools.cuda_report.families import patchwise_launch as launch
from tools.cuda_report.families import patchwise_loops as loops
from tools.cuda_report.families.patchwise_launch import WIDE
from tools.cuda_report.layers import Layer

_GROUP = "patchwise core"
_TRAINING = {"training": 1}
_BOTH = {"forward": 1, "training": 1}


def _relation(layer: Layer) -> int:
    return 2 * layer.R


def _value(layer: Layer) -> int:
    return 2 * layer.M


def _relation_sums(layer: Layer) -> int:
    return 2 * layer.R * (layer.K + 1)


def _hidden_parameters(layer: Layer) -> int:
    return layer.G * layer.R * (layer.K + 1)


def _core_parameters(layer: Layer) -> int:
    return layer.G * layer.K * (layer.G + 1)


def _columns(layer: Layer, _: DataType) -> dict[str, int]:
    return {"columns": launch.columns_together(layer)}


def _unit(layer: Layer, data_type: DataType) -> dict[str, int]:
    return {"unit": launch.unit(layer, data_type.bytes)}


def _products(layer: Layer, _: DataType) -> dict[str, int]:
    unit = launch.gradient_unit(layer)
    return {"products": launch.products(layer), "unit": unit}


ENTRIES = (
    Entry(
        "patchwise.tensor_hidden_forward<{columns}, {exact}>",
        "forward: hidden layer",
        _GROUP,
        _BOTH,
        loops.HIDDEN_FORWARD,
        launch.work(
            launch.hidden_forward,
            launch.hidden_forward_bytes,
            _relation,
            launch.hidden_flops,
        ),
        sizes=_columns,
    ),
    Entry(
        "patchwise.tensor_core_forward<{unit}, {exact}>",
        "forward: weights and aggregation",
        _GROUP,
        _BOTH,
        loops.CORE_FORWARD,
        launch.work(
            launch.core_forward,
            launch.core_forward_bytes,
            _value,
            launch.core_flops,
        ),
        sizes=_unit,
    ),
    Entry(
        "patchwise.tensor_relation_gradients<{held}, {exact}>",
        "gradients of phi, psi, scale and shift",
        _GROUP,
        _TRAINING,
        loops.RELATION_GRADIENTS,
        launch.work(
            launch.relation_gradients,
            launch.relation_gradients_bytes,
            lambda a: 2 * _relation(a),
            launch.hidden_flops,
            _relation_sums,
        ),
        sizes=lambda layer, _: {"held": 4 if layer.R > WIDE else 2},
    ),
    Entry(
        "patchwise.tensor_hidden_weights<{columns}, {exact}>",
        "gradient of the hidden layer's weight",
        _GROUP,
        _TRAINING,
        loops.HIDDEN_WEIGHTS,
        launch.work(
            launch.hidden_weights,
            launch.hidden_weights_bytes,
            _relation,
            launch.hidden_flops,
            _hidden_parameters,
        ),
        sizes=_columns,
    ),
    Entry(
        "patchwise.tensor_hidden_backward.add_partials<float>",
        "sums of the hidden layer's gradients",
        _GROUP,
        _TRAINING,
        loops.ADD_PARTIALS,
        launch.sums(
            (launch.relation_gradients, launch.hidden_weights),
            (_relation_sums, _hidden_parameters),
        ),
    ),
    Entry(
        "patchwise.tensor_hidden_gradients<{products}, {unit}, {exact}>",
        "gradient of hidden",
        _GROUP,
        _TRAINING,
        loops.HIDDEN_GRADIENTS,
        launch.work(
            launch.hidden_gradients,
            launch.hidden_gradients_bytes,
            _value,
            launch.core_flops,
        ),
        sizes=_products,
    ),
    Entry(
        "patchwise.tensor_core_weights<{products}, {unit}, {exact}>",
        "gradients of the core's weight and bias",
        _GROUP,
        _TRAINING,
        loops.CORE_WEIGHTS,
        launch.work(
            launch.core_weights,
            launch.core_weights_bytes,
            _value,
            launch.core_flops,
            _core_parameters,
        ),
        sizes=_products,
    ),
    Entry(
        "patchwise.tensor_core_backward.add_partials<float>",
        "sums of the core's gradients",
        _GROUP,
        _TRAINING,
        loops.ADD_PARTIALS,
        launch.sums((launch.core_weights,), (_core_parameters,)),
    ),
    Entry(
        "patchwise.tensor_value_gradients<{unit}, {exact}>",
        "gradient of value",
        _GROUP,
        _TRAINING,
        loops.VALUE_GRADIENTS,
        launch.work(
            launch.core_forward,
            launch.value_gradients_bytes,
            _value,
            launch.core_flops,
        ),
        sizes=_unit,
    ),
)
