"""From a network to torch.export's graph of it, with free sizes."""

import bisect
import dataclasses

import torch
from torch.export import Dim, ExportedProgram

import san
from san.jobs import config
from tools.export.deployable import BACKENDS, Deployable

_LEAST_EXAMPLE = 96  # A smaller one may be taken for the only size there is.


@dataclasses.dataclass(frozen=True)
class Traced:
    """A graph, and which images it says that it takes.

    Attributes:
      program: of a network; takes "images", gives logits.
      least: smallest height and width of images.
      is_free: whether height and width are free; the batch always is.
    """

    program: ExportedProgram
    least: int
    is_free: bool


def trace(source: Deployable, *, any_size: bool) -> Traced:
    """Records what a network computes.

    torch.export frees the height and width of images of which two pixels or
    more are left in the last stage, 64 for the published networks. Its own
    files refuse smaller images; ONNX's do not know of it.

    Args:
      source: the network.
      any_size: keep height and width free though the graph refuses images of
        the size that the network is meant for, where nobody will ask it.

    Raises:
      ValueError: torch.export does not take the network; or operators are
        left that ops="aten" does not have.
    """
    traced = _trace(source, max(source.image_size, _LEAST_EXAMPLE), True)
    if not any_size and traced.least > source.image_size:
        traced = _trace(source, source.image_size, False)
    if source.ops == "aten":
        _check_standard(traced.program)
    return traced


def _trace(source: Deployable, side: int, is_free: bool) -> Traced:
    # Two images, and no square: torch.export takes what is 1 for constant.
    images = torch.zeros(2, 3, side, side + 32 if is_free else side)
    free = (0, 2, 3) if is_free else (0,)
    try:
        with torch.no_grad(), san.use_attention_backend(BACKENDS[source.ops]):
            program = torch.export.export(
                source.model,
                (images,),
                dynamic_shapes=({axis: Dim.DYNAMIC for axis in free},),
            )
    except Exception as error:
        # Whatever a network of the user's own, or torch, raises on the way.
        said, _, _ = config.without_place(error).strip().partition("\n")
        raise ValueError(
            "export: the network must be one that torch.export takes, got"
            f" {type(error).__name__}: {said}"
        ) from error
    for node in program.graph.nodes:
        # Paths of this machine, which the files would hold.
        node.meta.pop("stack_trace", None)
    return Traced(program, _least(program, side) if is_free else side, is_free)


def _least(program: ExportedProgram, most: int) -> int:
    """The smallest height and width that the graph takes.

    Tried, since not all that it asks of sizes stands in its ranges.

    Args:
      program: the graph, with free sizes.
      most: a size that it takes.
    """
    module = program.module()

    def takes(side: int) -> bool:
        try:
            with torch.no_grad():
                module(torch.zeros(2, 3, side, side))
        # A guard of the graph, and what operators say of too small images.
        except (AssertionError, RuntimeError, ValueError):
            return False
        return True

    return 1 + bisect.bisect_left(range(1, most), True, key=takes)


def _check_standard(program: ExportedProgram) -> None:
    own = {
        str(node.target).removesuffix(".default").replace(".", "::", 1)
        for node in program.graph.nodes
        if str(node.target).startswith("san.")
    }
    if own:
        raise ValueError(
            "export: --ops=aten must leave operators of torch alone, got"
            f" {', '.join(sorted(own))}; a folded network is made of ours:"
            " export the network that it was made from, or take --ops=san"
        )
