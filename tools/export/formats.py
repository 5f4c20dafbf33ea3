"""The files that a network becomes: each is made, tried, and given out."""

from collections.abc import Sequence

from torch import Tensor

from tools.export import comparison, onnx_file, pt2_file, tracing
from tools.export.deployable import Deployable
from tools.export.stages import stage

# How a file of each format ends.
ENDS = {"onnx": ".onnx", "torch_export": ".pt2", "aotinductor": ".pt2"}

_WRITERS = {
    "onnx": onnx_file.write,
    "torch_export": pt2_file.write_program,
    "aotinductor": pt2_file.write_compiled,
}


def make(kind: str, source: Deployable) -> tuple[bytes, str]:
    """The file, after it gave the network's logits.

    Args:
      kind: a name of ENDS.
      source: the network.

    Returns:
      The file; and lines on which images it takes and how exact it is.

    Raises:
      ValueError: the network cannot be exported, or the file is not it.
      OSError: something that compiles it failed.
    """
    is_onnx = kind == "onnx"
    with stage("tracing the network"):
        traced = tracing.trace(source, any_size=is_onnx)
    with stage(f"writing {kind}"):
        file = _WRITERS[kind](source, traced)

    def run(batches: Sequence[Tensor]) -> list[Tensor]:
        if is_onnx:
            return onnx_file.run(file, batches)
        return pt2_file.run(file, kind, source.ops, batches)

    # No guard of the graph is in an ONNX file.
    least = 1 if is_onnx else traced.least
    with stage("comparing"):
        agreement = comparison.compare(source, traced, run, least=least)
    return file, f"{_takes(traced, least)}\n{agreement.as_text()}"


def _takes(traced: tracing.Traced, least: int) -> str:
    if not traced.is_free:
        return f"takes images of {traced.least} x {traced.least} pixels alone"
    if least == 1:
        return "takes images of any size that the network takes"
    return f"takes images of {least} x {least} pixels or more"
