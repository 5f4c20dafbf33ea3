"""Inference of small batches on a GPU without the time that launches take.

A network of many small kernels spends its time on starting them. A CUDA graph
starts all of them at once, for one shape of images.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from san.folding.copying import detached_copy
from san.fusion.rule import why_all_hooked

_OP = "capture_for_inference"
# Of its first calls a network may allocate, tune and fill caches.
_WARM_UP_CALLS = 3


def capture_for_inference(
    model: nn.Module, example_images: Tensor
) -> "CapturedNetwork":
    """Records what a network does on a GPU, to be played again.

    Best for batches so small that the GPU waits for the CPU; a large batch
    gains nothing.

    Args:
      model: any network on a GPU in eval mode, such as what
        fold_for_inference gives. The graph reads a copy of it: later
        changes and calls of the model leave the graph as it is.
      example_images: [N, C, H, W] on the same GPU; images of later calls
        have its shape and dtype.

    Returns:
      A callable with the outputs of model(images), without gradients.

    Raises:
      ValueError: if the images are not on a CUDA device, or a module of the
        model is in training mode or has a hook.
      RuntimeError: if there is no CUDA device.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{_OP}: model must be a module, got {type(model).__name__}"
        )
    if not isinstance(example_images, Tensor):
        raise ValueError(
            f"{_OP}: example_images must be a tensor, "
            f"got {type(example_images).__name__}"
        )
    if example_images.device.type != "cuda":
        raise ValueError(
            f"{_OP}: example_images must be on a CUDA device, "
            f"got {example_images.device}"
        )
    _check_model(model)
    if not torch.cuda.is_available():
        raise RuntimeError(f"{_OP}: a CUDA device must be available, got none")
    return CapturedNetwork(model, example_images)


def _check_model(model: nn.Module) -> None:
    """What runs once, at the capture, must not be what should run each time."""
    if why := why_all_hooked():
        raise ValueError(f"{_OP}: model must have no hooks, but {why}")
    for name, module in model.named_modules():
        place = name or "the model"
        if module.training:
            raise ValueError(
                f"{_OP}: model must be in eval mode, got {place} in training "
                "mode; call model.eval()"
            )
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"{_OP}: model must have no hooks, which a graph would not "
                f"call again, got one on {place}; remove it, or make what it "
                "computes permanent (torch.nn.utils.prune.remove, "
                "remove_weight_norm, remove_spectral_norm)"
            )


class CapturedNetwork:
    """A network as a CUDA graph, for images of one shape, dtype and device.

    Made by capture_for_inference.
    """

    def __init__(self, model: nn.Module, example_images: Tensor) -> None:
        # The graph reads what the network holds, tables for one size of
        # images among it: nobody else may call this copy.
        self._model = detached_copy(_OP, model)
        self._graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(example_images.device),
            torch.inference_mode(),
            _no_autocast_cache(),
        ):
            self._images = example_images.clone()
            _warm_up(self._model, self._images)
            with torch.cuda.graph(self._graph):
                self._output = self._model(self._images)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """The output of the network, in memory of its own.

        Args:
          images: of the shape, dtype and device of the example.

        Raises:
          ValueError: if they are anything else.
        """
        require_same_kind(images, self._images)
        with torch.cuda.device(images.device):
            self._images.copy_(images)
            self._graph.replay()
            return self._output.clone()


def require_same_kind(images: Tensor, example: Tensor) -> None:
    """Raises ValueError unless the images could stand for the example."""
    for name in ("shape", "dtype", "device"):
        expected, got = getattr(example, name), getattr(images, name)
        if name == "shape":
            expected, got = list(expected), list(got)
        if expected != got:
            raise ValueError(
                f"{_OP}: images must have {name} {expected}, got {got}"
            )


@contextlib.contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Weights are cast within the graph, not before it and freed after."""
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def _warm_up(model: nn.Module, images: Tensor) -> None:
    """Calls the network on a stream of its own, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_CALLS):
            model(images)
    torch.cuda.current_stream().wait_stream(stream)
