"""A network as an ONNX file, and what onnxruntime makes of it."""

from collections.abc import Sequence

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
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(file: bytes, batches: Sequence[Tensor]) -> list[Tensor]:
    """The logits of batches of images by onnxruntime's CPU kernels.

    Args:
      file: what was written.
      batches: float32 [N, 3, H, W] each.
    """
    session = onnxruntime.InferenceSession(
        file, providers=["CPUExecutionProvider"]
    )
    return [
        torch.from_numpy(session.run(["logits"], {"images": b.numpy()})[0])
        for b in batches
    ]


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
