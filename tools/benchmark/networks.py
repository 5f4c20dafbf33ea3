"""Subcommand models: whole networks, their time and their memory.

Against the eager design in plain PyTorch: inference, training steps, tensors
saved for the backward pass, peak memory; on CUDA also launches.
"""

import copy
import dataclasses
import functools
import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import san
from tools.benchmark import allocator, backends, peers, targets
from tools.benchmark.clocks import LatencyClock
from tools.benchmark.eager_network import EagerSAN, draw_norms
from tools.benchmark.errors import step_error
from tools.benchmark.measurement import (
    Case,
    Contender,
    Entry,
    Quantity,
    Settings,
)

# What the eager network is made of, where its memory is counted.
_OPERATORS = {"eager": peers.Unfold, targets.PUBLISHED_DESIGN: peers.Kernels}

_SIDE = 224
_MEMORY_BATCH = 2
_PEAK_BATCH = 8
# Of a training step; in float64 a larger one needs more memory than GPUs have.
_CHECK_BATCH = 8


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand."""
    on_gpu = settings.device.type == "cuda"
    batch = 64 if on_gpu else 8
    timed = [
        *(("inference", f"san10_{kind}", batch) for kind in ("pair", "patch")),
        ("training step", "san10_pair", batch),
        ("inference", "san10_pair", 1),
    ]
    if not settings.quick:
        timed.insert(3, ("training step", "san10_patch", batch))
    sizes = ("san10",) if settings.quick else ("san10", "san15", "san19")
    result = [
        Entry(work, functools.partial(_case, work, mode, name, size, settings))
        for mode, name, size in timed
        for work in (f"{name} {mode}, batch {size}",)
    ]
    for size in sizes:
        for kind in ("pair", "patch"):
            name = f"{size}_{kind}"
            work = f"{name} saved tensors per image"
            for peer, operators in _OPERATORS.items():
                build = functools.partial(
                    _saved, work, name, operators, peer, settings
                )
                result.append(Entry(work, build))
    for kind in ("pair", "patch"):
        name = f"san10_{kind}"
        work = f"{name} peak inference memory per image"
        build = functools.partial(_peak, work, name, settings)
        result.append(Entry(work, build))
    if on_gpu:
        build = functools.partial(_launches, settings)
        result.append(Entry("launches per block", build))
    return result


def saved_bytes(run: Callable[[], Any], module: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass.

    Args:
      run: the forward pass; its result holds the graph.
      module: whose parameters and buffers do not count.

    Returns:
      The size of the distinct storages that were saved.
    """
    own = {
        t.untyped_storage().data_ptr()
        for t in (*module.parameters(), *module.buffers())
    }
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = run()
    total = sum(size for key, size in storages.items() if key not in own)
    del output
    return total


def peak_bytes(run: Callable[[torch.Tensor], Any], images: torch.Tensor) -> int:
    """Memory that a run over images needs on top of what is there."""
    gc.collect()
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        run(images)
        return torch.cuda.max_memory_allocated(images.device) - before
    run(images[:1])  # Libraries make their buffers at the first call.
    allocator.configure(allocator.DEFAULT)
    before = allocator.restart_peak()
    run(images)
    return allocator.peak() - before


def make_networks(
    name: str, device: torch.device, operators: Any = peers.Unfold
) -> tuple[nn.Module, nn.Module]:
    """San's network and the eager one, with the same parameters.

    Args:
      name: of a SAN, such as san10_pair.
      device: where both are.
      operators: of the eager one.
    """
    torch.manual_seed(0)
    ours = san.create_model(name)
    draw_norms(ours)
    eager = EagerSAN(name, operators)
    eager.load_state_dict(ours.state_dict())
    return ours.to(device), eager.to(device)


def make_images(batch: int, device: torch.device) -> torch.Tensor:
    """[N, 3, 224, 224], the same each time."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch, 3, _SIDE, _SIDE)
    return torch.randn(shape, generator=generator).to(device)


def _case(
    work: str, mode: str, name: str, batch: int, settings: Settings
) -> Case:
    ours, eager = make_networks(name, settings.device)
    images = make_images(batch, settings.device)
    on_gpu = settings.device.type == "cuda"
    make = _inference if mode == "inference" else training_step
    contenders = [
        make(backend, copy.deepcopy(ours), images)
        for backend in backends.chosen(settings, "unfused")
    ]
    if mode == "inference":
        contenders = _folded(ours, images) + contenders
    peer = make("eager", eager, images)
    under_malloc = "eager" + targets.DEFAULT_MALLOC
    has_target = targets.find(settings.device.type, work, under_malloc)
    case = Case(
        work=work,
        ours=contenders[0],
        peers=[*contenders[1:], peer, *peer.in_tf32(settings.device)],
        # Two implementations that share nothing, at the whole batch.
        reference=peer.run,
        tolerance=1e-3,
        with_default_malloc=("eager",) if has_target else (),
        skipped=backends.skipped(settings, "unfused"),
        # Of one image the launches are what takes time, and a graph spares.
        clock=LatencyClock() if on_gpu and batch == 1 else None,
    )
    if mode == "inference":
        return case
    wide = copy.deepcopy(eager).double()
    exact = training_step("float64", wide, images.double()).check
    return dataclasses.replace(
        case, reference=exact, error=step_error, yardstick=peer.name
    )


def _inference(
    backend: str, model: nn.Module, images: torch.Tensor
) -> Contender:
    model.eval()

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(images)

    return Contender(backend, run, _chooser(backend))


def _folded(model: nn.Module, images: torch.Tensor) -> list[Contender]:
    """The network folded for inference; a single image as a CUDA graph too."""
    folded = san.fold_for_inference(copy.deepcopy(model).eval())
    runs = {"folded": _inference(backends.OURS, folded, images).run}
    if images.device.type == "cuda" and len(images) == 1:
        captured = san.capture_for_inference(folded, images)
        runs = {"folded, CUDA graph": lambda: captured(images), **runs}
    prepare = _chooser(backends.OURS)
    return [Contender(name, run, prepare) for name, run in runs.items()]


def training_step(
    backend: str,
    model: nn.Module,
    images: torch.Tensor,
    autocast: torch.dtype | None = None,
) -> Contender:
    """Forward, loss, backward and a step of SGD at a learning rate of zero.

    Args:
      backend: the contender's name, and the backend if there is one of it.
      model: put into training mode.
      images: of a step; the labels are 0, 1, 2 and so on.
      autocast: computes in this where it may.

    Returns:
      A contender whose check gives the loss and all gradients, by name.
    """
    model.train()
    device = images.device.type
    labels = torch.arange(len(images), device=images.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def run(count: int | None = None) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, autocast, enabled=autocast is not None):
            logits = model(images[:count])
            loss = nn.functional.cross_entropy(logits, labels[:count])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def check() -> Sequence[torch.Tensor]:
        loss = run(_CHECK_BATCH)
        named = sorted(model.named_parameters())
        return [loss, *(_gradient(parameter) for _, parameter in named)]

    return Contender(backend, run, _chooser(backend), check)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # A bias that cancels need not be used.
        return torch.zeros_like(parameter)
    return parameter.grad


def _chooser(backend: str) -> Callable[[], None]:
    if backend in backends.BACKENDS:
        return backends.chooser(backend)
    return lambda: None


def _saved(
    work: str, name: str, operators: Any, peer: str, settings: Settings
) -> Quantity:
    images = make_images(_MEMORY_BATCH, settings.device)

    def count() -> tuple[float, float]:
        san.set_attention_backend(backends.OURS)
        ours, eager = (
            saved_bytes(functools.partial(model, images), model)
            for model in make_networks(name, settings.device, operators)
        )
        unit = 1e6 * _MEMORY_BATCH
        return ours / unit, eager / unit

    return Quantity(work, peer, "MB", count)


def _peak(work: str, name: str, settings: Settings) -> Quantity:
    images = make_images(_PEAK_BATCH, settings.device)

    def run(model: nn.Module, images: torch.Tensor) -> None:
        with torch.inference_mode():
            model(images)

    def count() -> tuple[float, float]:
        san.set_attention_backend(backends.OURS)
        ours, eager = (
            peak_bytes(functools.partial(run, model.eval()), images)
            for model in make_networks(name, settings.device)
        )
        unit = 1e6 * _PEAK_BATCH
        return ours / unit, eager / unit

    return Quantity(work, "eager", "MB", count)


def _launches(settings: Settings) -> Quantity:
    """CUDA launches of a folded network, shared out over its bottlenecks."""
    network, _ = make_networks("san10_pair", settings.device)
    blocks = sum(isinstance(m, san.Bottleneck) for m in network.modules())
    folded = san.fold_for_inference(network)
    images = make_images(1, settings.device)

    def count() -> tuple[float, float]:
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.inference_mode():
            folded(images)
            with torch.profiler.profile(activities=activities) as profile:
                folded(images)
                torch.cuda.synchronize()
        launches = sum(
            event.count
            for event in profile.key_averages()
            if event.key.startswith(("cudaLaunch", "cuLaunch"))
        )
        return launches / blocks, 1.0

    return Quantity(
        "launches per block", "one launch", "launches", count, gain=False
    )
