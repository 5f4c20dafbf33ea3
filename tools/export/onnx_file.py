"""A network as an ONNX file, and what onnxruntime makes of it."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

# onnxruntime reports its use over the network, from its import on, unless asked
# not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnx
import onnxruntime
import torch
from torch import Tensor

from tools.export.deployable import Deployable
from tools.export.tracing import Traced

_OPSET = 20  # Of 2023: what today's runtimes take.
_AXES = ("batch", "height", "width")


def write(source: Deployable, traced: Traced) -> bytes:
    """The file: standard operators, weights inside.

    Args:
      source: the network.
      traced: its graph, of ops="aten".
    """
    program = torch.onnx.export(
        traced.program,
        dynamo=True,
        opset_version=_OPSET,
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    assert {node.domain for node in model.graph.node} == {""}
    _name_axes(model)
    _forget_sources(model)
    onnx.helper.set_model_props(model, source.metadata)
    # Runtimes refuse a file format that is newer than they are, whatever is in
    # it: that of this opset.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(file: bytes, batches: Sequence[Tensor]) -> list[Tensor]:
    """The logits of batches of images by onnxruntime's CPU kernels.

    Args:
      file: what was written.
      batches: float32 [N, 3, H, W] each.
    """
    session = _session(file, onnxruntime.SessionOptions())
    return [_logits(session, batch) for batch in batches]


def prepared(
    file: bytes, shape: Sequence[int], threads: int
) -> Callable[[Tensor], Tensor]:
    """What gives the logits of images of one shape, as fast as onnxruntime can.

    Its threads spin while they wait for each other within a call, as they do by
    default, and no longer: what comes next has the cores to itself.

    Args:
      file: what was written.
      shape: [N, 3, H, W] of the images.
      threads: that it computes on, the caller's among them.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    batch, _, height, width = shape
    for axis, size in zip(_AXES, (batch, height, width), strict=True):
        options.add_free_dimension_override_by_name(axis, size)
    return functools.partial(_logits, _session(file, options))


def _session(file: bytes, options: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        file, options, providers=["CPUExecutionProvider"]
    )


def _logits(session: onnxruntime.InferenceSession, images: Tensor) -> Tensor:
    return torch.from_numpy(
        session.run(["logits"], {"images": images.numpy()})[0]
    )


def _name_axes(model: onnx.ModelProto) -> None:
    """Calls free axes what they are, wherever they stand alone."""
    graph = model.graph
    sizes = [graph.input[0].type.tensor_type.shape.dim[i] for i in (0, 2, 3)]
    names = dict(zip([s.dim_param for s in sizes], _AXES, strict=True))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drops what each node says of the Python that it came from.

    Which is more bytes than a small network, and of interest to nobody there.
    """
    for part in (*model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
