"""Subcommand ops: aggregation, subtraction2 and their gradients.

At the sizes of SAN10's five stages, float32; batch 8, on a GPU 64.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

import cuda_kernels
import san
from san.ops import reference
from tools.benchmark import peers, targets
from tools.benchmark.measurement import Case, Contender, Entry, Settings

_SLOW_PEERS = {
    "einsum": "--quick leaves it out; it is slower than unfold",
    "compiled unfold": "--quick leaves it out; it compiles for minutes",
    "compiled tap loop": "--quick leaves it out; it compiles for minutes",
}


class Layer(NamedTuple):
    """Sizes of the attention of one stage of SAN10 on 224 x 224 images."""

    number: int
    size: int  # H and W
    kernel_size: int
    channels: int  # those of the value
    relation_channels: int
    weight_channels: int

    @property
    def pixels(self) -> int:
        """P."""
        return self.size * self.size

    @property
    def taps(self) -> int:
        """K."""
        return self.kernel_size**2

    @property
    def window(self) -> dict[str, int]:
        """The window's arguments."""
        return {
            "kernel_size": self.kernel_size,
            "padding": self.kernel_size // 2,
        }


LAYERS = (
    Layer(0, 112, 3, 16, 4, 2),
    Layer(1, 56, 7, 64, 16, 8),
    Layer(2, 28, 7, 128, 32, 16),
    Layer(3, 14, 7, 256, 64, 32),
    Layer(4, 7, 7, 512, 128, 64),
)

_Tensors = Sequence[torch.Tensor]
_Ways = dict[str, Callable[..., Any]]


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    makers = {
        "aggregation forward": _aggregation_forward,
        "aggregation gradients": _aggregation_gradients,
        "subtraction2 forward": _subtraction2_forward,
        "subtraction2 gradients": _subtraction2_gradients,
    }
    if settings.device.type == "cpu":
        makers["aggregation in channels-last"] = _aggregation_in_channels_last
    return [
        Entry(work, functools.partial(maker, work, layer, settings))
        for name, maker in makers.items()
        for layer in LAYERS
        for work in targets.layers(name, (layer.number,))
    ]


def _aggregation_forward(work: str, layer: Layer, settings: Settings) -> Case:
    x, weight, _ = _aggregation_tensors(layer, settings)
    k = layer.kernel_size
    ways = {
        "unfold": peers.unfold_aggregation,
        "einsum": peers.einsum_aggregation,
        "tap loop": peers.loop_aggregation,
    }
    ways, skipped = _in_time(ways, settings)
    return Case(
        work=work,
        ours=Contender(
            "ours", lambda: san.ops.aggregation(x, weight, **layer.window)
        ),
        peers=[
            *(
                Contender(name, functools.partial(way, x, weight, k))
                for name, way in ways.items()
            ),
            _simple(
                cuda_kernels.aggregation_forward,
                (x, weight),
                (torch.empty_like(x),),
                layer,
            ),
        ],
        reference=lambda: _by_image(
            lambda *t: reference.aggregation(*t, **layer.window), (x, weight)
        ),
        traffic=_bytes(x, weight, x),
        operations=2 * x.numel() * layer.taps,
        with_default_malloc=("unfold",),
        skipped=skipped,
    )


def _aggregation_gradients(work: str, layer: Layer, settings: Settings) -> Case:
    x, weight, grad_output = _aggregation_tensors(layer, settings)
    k = layer.kernel_size
    ways = {
        "unfold": lambda *t: peers.unfold_aggregation(*t, k),
        "einsum": lambda *t: peers.einsum_aggregation(*t, k),
        "tap loop by autograd": lambda *t: peers.loop_aggregation(*t, k),
    }
    ways, skipped = _in_time(ways, settings)
    return Case(
        work=work,
        ours=Contender(
            "ours",
            _gradients(
                lambda *t: san.ops.aggregation(*t, **layer.window),
                (x, weight),
                grad_output,
            ),
        ),
        peers=[
            *(
                Contender(name, _gradients(way, (x, weight), grad_output))
                for name, way in ways.items()
            ),
            Contender(
                "tap loop",
                lambda: peers.loop_aggregation_gradients(
                    grad_output, x, weight, k
                ),
            ),
            _simple(
                cuda_kernels.aggregation_backward,
                (grad_output, x, weight),
                (torch.empty_like(x), torch.empty_like(weight)),
                layer,
            ),
        ],
        reference=lambda: _gradients_by_image(
            lambda *t: reference.aggregation(*t, **layer.window),
            (x, weight),
            grad_output,
        ),
        traffic=_bytes(grad_output, x, weight, x, weight),
        operations=4 * x.numel() * layer.taps,
        with_default_malloc=("unfold",),
        skipped=skipped,
    )


def _aggregation_in_channels_last(
    work: str, layer: Layer, settings: Settings
) -> Case:
    """Forward; the peer goes through copies in row-major order."""
    x, weight, _ = _aggregation_tensors(layer, settings)
    last = x.contiguous(memory_format=torch.channels_last)

    def with_copies() -> torch.Tensor:
        output = san.ops.aggregation(last.contiguous(), weight, **layer.window)
        return output.contiguous(memory_format=torch.channels_last)

    return Case(
        work=work,
        ours=Contender(
            "ours", lambda: san.ops.aggregation(last, weight, **layer.window)
        ),
        peers=[
            Contender("copies", with_copies),
            Contender(
                "row-major",
                lambda: san.ops.aggregation(x, weight, **layer.window),
            ),
        ],
        reference=lambda: _by_image(
            lambda *t: reference.aggregation(*t, **layer.window), (x, weight)
        ),
        traffic=_bytes(x, weight, x),
        operations=2 * x.numel() * layer.taps,
    )


def _subtraction2_forward(work: str, layer: Layer, settings: Settings) -> Case:
    a, b, grad_output = _subtraction2_tensors(layer, settings)
    k = layer.kernel_size
    ways = {
        "unfold": peers.unfold_subtraction2,
        "tap loop": peers.loop_subtraction2,
    }
    ways, skipped = _in_time(ways, settings)
    return Case(
        work=work,
        ours=Contender(
            "ours", lambda: san.ops.subtraction2(a, b, **layer.window)
        ),
        peers=[
            *(
                Contender(name, functools.partial(way, a, b, k))
                for name, way in ways.items()
            ),
            _simple(
                cuda_kernels.subtraction2_forward,
                (a, b),
                (torch.empty_like(grad_output),),
                layer,
            ),
        ],
        reference=lambda: _by_image(
            lambda *t: reference.subtraction2(*t, **layer.window), (a, b)
        ),
        traffic=_bytes(a, b, grad_output),
        operations=grad_output.numel(),
        skipped=skipped,
    )


def _subtraction2_gradients(
    work: str, layer: Layer, settings: Settings
) -> Case:
    a, b, grad_output = _subtraction2_tensors(layer, settings)
    k = layer.kernel_size
    ways = {
        "unfold": lambda *t: peers.unfold_subtraction2(*t, k),
        "tap loop by autograd": lambda *t: peers.loop_subtraction2(*t, k),
    }
    ways, skipped = _in_time(ways, settings)
    return Case(
        work=work,
        ours=Contender(
            "ours",
            _gradients(
                lambda *t: san.ops.subtraction2(*t, **layer.window),
                (a, b),
                grad_output,
            ),
        ),
        peers=[
            *(
                Contender(name, _gradients(way, (a, b), grad_output))
                for name, way in ways.items()
            ),
            Contender(
                "tap loop",
                lambda: peers.loop_subtraction2_gradients(grad_output, b, k),
            ),
            _simple(
                cuda_kernels.subtraction2_backward,
                (grad_output,),
                (torch.empty_like(a), torch.empty_like(b)),
                layer,
            ),
        ],
        reference=lambda: _gradients_by_image(
            lambda *t: reference.subtraction2(*t, **layer.window),
            (a, b),
            grad_output,
        ),
        traffic=_bytes(a, b, grad_output),
        operations=2 * grad_output.numel(),
        skipped=skipped,
    )


def _aggregation_tensors(layer: Layer, settings: Settings) -> _Tensors:
    """Input, weight and the gradient of the output."""
    image = (settings.batch, layer.channels, layer.size, layer.size)
    weight = (settings.batch, layer.weight_channels, layer.taps, layer.pixels)
    return _normal((image, weight, image), settings.device)


def _subtraction2_tensors(layer: Layer, settings: Settings) -> _Tensors:
    """Both images and the gradient of the output."""
    image = (settings.batch, layer.relation_channels, layer.size, layer.size)
    output = (settings.batch, layer.relation_channels, layer.taps, layer.pixels)
    return _normal((image, image, output), settings.device)


def _normal(shapes: Sequence[Sequence[int]], device: torch.device) -> _Tensors:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator).to(device) for shape in shapes
    ]


def _gradients(
    forward: Callable[..., torch.Tensor],
    inputs: _Tensors,
    grad_output: torch.Tensor,
) -> Callable[[], _Tensors]:
    """The backward pass alone of a differentiable function."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    output = forward(*leaves)
    return lambda: torch.autograd.grad(
        output, leaves, grad_output, retain_graph=True
    )


def _by_image(forward: Callable[..., torch.Tensor], inputs: _Tensors) -> Any:
    """A forward pass in float64, one image at a time for its memory."""
    images = zip(*(t.double().split(1) for t in inputs), strict=True)
    return torch.cat([forward(*image) for image in images])


def _gradients_by_image(
    forward: Callable[..., torch.Tensor],
    inputs: _Tensors,
    grad_output: torch.Tensor,
) -> _Tensors:
    images = zip(
        *(t.double().split(1) for t in (*inputs, grad_output)), strict=True
    )
    grads = [_gradients(forward, image[:-1], image[-1])() for image in images]
    return [torch.cat(parts) for parts in zip(*grads, strict=True)]


def _simple(
    kernel: Callable[..., None],
    inputs: _Tensors,
    outputs: _Tensors,
    layer: Layer,
) -> Contender:
    """The kernel that computes one element of the output per thread."""
    device = outputs[0].device

    def run() -> _Tensors:
        stream = 0
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device).cuda_stream
        kernel(
            *inputs,
            *outputs,
            **layer.window,
            implementation="simple",
            stream=stream,
        )
        return outputs

    return Contender(targets.SIMPLE, run)


def _in_time(ways: _Ways, settings: Settings) -> tuple[_Ways, dict[str, str]]:
    """Adds the compiled ways, or takes out what --quick has no time for."""
    if settings.quick:
        slow = {**_SLOW_PEERS, "tap loop by autograd": _SLOW_PEERS["einsum"]}
        kept = {name: way for name, way in ways.items() if name not in slow}
        return kept, _SLOW_PEERS
    torch.compiler.reset()
    compiled = {
        f"compiled {name}": torch.compile(way, dynamic=False)
        for name, way in ways.items()
        if name != "einsum"
    }
    return ways | compiled, {}


def _bytes(*tensors: torch.Tensor) -> int:
    """What has to be moved if each tensor is read or written once."""
    return sum(t.numel() * t.element_size() for t in tensors)
