"""A network as an ONNX file, in ONNX Runtime and in OpenVINO."""

import openvino
import torch
from torch import Tensor, nn

from tools.benchmark.ways import Run
from tools.export import onnx_file, tracing
from tools.export.deployable import Deployable
from tools.export.stages import stage

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class UnsupportedError(Exception):
    """What a runtime does not do on this machine, and says nothing of."""


def exported(name: str, model: nn.Module, side: int) -> bytes:
    """A network as //tools:export writes it; who runs it has to check it.

    Args:
      name: of the network.
      model: in eval mode.
      side: of its images, in pixels.
    """
    source = Deployable(model, "aten", torch.float32, side, {"network": name})
    with stage(f"exporting {name}"):
        return onnx_file.write(source, tracing.trace(source, any_size=True))


def by_onnx_runtime(file: bytes, images: Tensor, threads: int) -> Run:
    """In ONNX Runtime, which computes in float32 on a CPU.

    Args:
      file: of a network.
      images: that it is run on, of whose shape it is made.
      threads: that it may use.
    """
    logits = onnx_file.prepared(file, images.shape, threads)
    return lambda: logits(images)


def by_openvino(
    file: bytes, images: Tensor, threads: int, dtype: torch.dtype
) -> Run:
    """In OpenVINO, for the least time of a call.

    Args:
      file: of a network.
      images: that it is run on, of whose shape it is made.
      threads: that it may use.
      dtype: that it computes in, float32 or bfloat16.

    Raises:
      UnsupportedError: it computes in another here.
    """
    core = openvino.Core()
    model = core.read_model(model=file)
    model.reshape(list(images.shape))
    wanted = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned to the first cores, whatever else runs there, it takes up to a
        # third longer on a busy machine; on a quiet one it makes no difference.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(model, "CPU", wanted)
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != wanted["INFERENCE_PRECISION_HINT"]:
        raise UnsupportedError(
            f"OpenVINO computes in {found} on this processor"
        )
    batch = images.numpy()
    return lambda: torch.from_numpy(compiled(batch)["logits"])
