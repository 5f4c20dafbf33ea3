"""Subcommand twin: what a practitioner would run instead, beside SAN.

SAN10, ours and folded, beside its convolutional twin ResNet26 and beside
ResNet50 in every way that a CPU has for them: eager in both layouts, compiled
and frozen, ONNX Runtime, OpenVINO; a single image also beside SAN10 exported to
these two. The larger networks and their twins take part in one work, so that
all nine can be drawn over their published accuracy. Then training steps, and
what they save for the backward pass.

Works on one thread are timed by the process's time on the processor: what else
runs on the machine is not in it, and a second thread, if a runtime took one,
is. Works on two are timed by the clock.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import san
from tools.benchmark import (
    backends,
    errors,
    runtimes,
    targets,
    twin_networks,
    ways,
)
from tools.benchmark.measurement import Contender, Entry, Quantity, Settings
from tools.benchmark.networks import make_images, saved_bytes, training_step
from tools.benchmark.twin_case import EXPORTED, Beside, Setup
from tools.benchmark.ways import Run

_BATCH = 8  # Of what is not about a single image.
# Each of ours, and what it is measured beside.
_BESIDE = {
    "san10_pair": ("resnet26", "resnet50"),
    "san10_patch": ("resnet26", "resnet50"),
}
_LARGER = {
    "san15_pair": ("resnet38",),
    "san15_patch": ("resnet38",),
    "san19_pair": ("resnet50",),
    "san19_patch": ("resnet50",),
}
# The work that is drawn over accuracy.
_DRAWN = Setup("inference", _BATCH, torch.float32, 1)
_TRAINED = Setup("training step", _BATCH, torch.float32, 1)

# Largest errors of logits, beside the largest of them; and of a training step:
# see errors.step_error. In bfloat16 its gradients are not compared: in networks
# of random weights, rounding moves them by as much as they are long. Its logits
# are, whose norms have the statistics of the batch.
_OF_LOGITS = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
_OF_STEP = {torch.float32: 5e-2, torch.bfloat16: 0.25}

_CPU = torch.device("cpu")
_DEFAULTS = Settings(_CPU)


def entries(settings: Settings) -> list[Entry]:
    """All works of this subcommand.

    Args:
      settings: how to measure; `quick` is SAN10 beside ResNet26, in float32
        and on one thread.

    Raises:
      ValueError: a setting has no effect here.
    """
    _check(settings)
    result = []
    for setup in _setups(settings.quick):
        make = _inference if setup.mode == _DRAWN.mode else _training
        build = functools.partial(make, setup, settings.quick)
        result.append(Entry(setup.work(), build))
    # The same as are trained.
    for name, others in _beside(_TRAINED, settings.quick).items():
        work = targets.saved_work(name, _BATCH)
        result += [
            Entry(work, functools.partial(_saved, work, name, peer))
            for peer in (targets.ONE_MB, *others)
        ]
    return result


def _check(settings: Settings) -> None:
    for name, wants in (
        ("device", "it measures CPUs alone"),
        ("threads", "it measures on one thread and on two"),
        ("batch", "it measures batches of 8 and of 1"),
    ):
        default, value = (getattr(s, name) for s in (_DEFAULTS, settings))
        if value != default:
            raise ValueError(
                f"benchmark twin: --{name} must be left out, {wants}, got"
                f" {value}"
            )


def _setups(quick: bool) -> list[Setup]:
    if quick:
        return [_DRAWN, _TRAINED]
    return [
        Setup(mode, batch, dtype, threads)
        for (mode, batch), dtype, threads in itertools.product(
            ((_DRAWN.mode, _BATCH), (_DRAWN.mode, 1), (_TRAINED.mode, _BATCH)),
            (torch.float32, torch.bfloat16),
            (1, 2),
        )
    ]


def _beside(setup: Setup, quick: bool) -> Mapping[str, Sequence[str]]:
    """Of each of ours the networks to compete with."""
    if quick:
        return {ours: others[:1] for ours, others in _BESIDE.items()}
    if setup.mode == _TRAINED.mode:
        return _BESIDE
    if setup.batch == 1:  # A batch of exported SANs takes gigabytes.
        return {
            ours: (*others, ours + EXPORTED) for ours, others in _BESIDE.items()
        }
    return {**_BESIDE, **_LARGER} if setup == _DRAWN else _BESIDE


def _inference(setup: Setup, quick: bool) -> Beside:
    torch._dynamo.reset()  # What it holds of the work before.
    images = make_images(setup.batch, _CPU)
    beside = _beside(setup, quick)
    ours, others, skipped = [], [], {}
    for name in beside:
        model = twin_networks.make(name)
        folded = san.fold_for_inference(model, setup.dtype)
        run = ways.eager(folded, images.to(setup.dtype))
        ours.append(setup.contender(name, "folded", run))
    for name in _all(beside):
        for way, make in _ways(name, setup, images).items():
            try:
                others.append(setup.contender(name, way, make()))
            except runtimes.UnsupportedError as error:
                skipped[f"{name}, {way}"] = str(error)
    return Beside(
        *(setup, beside, ours, others),
        reference=functools.partial(twin_networks.logits, setup.batch),
        error=errors.largest_error,
        tolerance=_OF_LOGITS[setup.dtype],
        skipped=skipped,
    )


def _all(beside: Mapping[str, Sequence[str]]) -> list[str]:
    """Each of the others once."""
    return list(dict.fromkeys(itertools.chain(*beside.values())))


def _ways(
    name: str, setup: Setup, images: torch.Tensor
) -> dict[str, Callable[[], Run]]:
    """What makes each way of running a network of others, by its name."""
    threads, dtype = setup.threads, setup.dtype
    model = twin_networks.make(name.removesuffix(EXPORTED))
    result: dict[str, Callable[[], Run]] = {}
    if not name.endswith(EXPORTED):
        last = ways.in_channels_last(model, images)
        eager, compiled = (
            functools.partial(way, *last, autocast=setup.autocast)
            for way in (ways.eager, ways.compiled)
        )
        if setup.autocast:
            cast, batch = ways.in_channels_last(*last)
            result["channels-last, cast"] = functools.partial(
                ways.eager, cast.to(dtype), batch.to(dtype)
            )
            result["channels-last, autocast"] = eager
        else:
            result["NCHW"] = functools.partial(ways.eager, model, images)
            result["channels-last"] = eager
        result["compiled and frozen"] = functools.partial(
            compiled, threads=threads
        )
    file = _file(name.removesuffix(EXPORTED))
    if not setup.autocast:  # It has no bfloat16 on a CPU.
        result["ONNX Runtime"] = functools.partial(
            runtimes.by_onnx_runtime, file, images, threads
        )
    result["OpenVINO"] = functools.partial(
        runtimes.by_openvino, file, images, threads, dtype
    )
    return result


@functools.cache
def _file(name: str) -> bytes:
    side = make_images(1, _CPU).shape[-1]
    return runtimes.exported(name, twin_networks.make(name), side)


def _training(setup: Setup, quick: bool) -> Beside:
    images = make_images(setup.batch, _CPU)
    beside = _beside(setup, quick)

    def contender(name: str, way: str) -> Contender:
        model, batch = twin_networks.make(name), images
        if way == "channels-last":
            model, batch = ways.in_channels_last(model, batch)
        step = training_step(way, model, batch, setup.autocast)
        check = step.check
        if setup.autocast:
            check = ways.in_training(model, batch, setup.autocast)
        return setup.contender(name, way, step.run, check)

    reference: Callable[[int, str], Any]
    reference, error = twin_networks.step, errors.step_error
    if setup.autocast:
        reference = twin_networks.logits_in_training
        error = errors.largest_error
    return Beside(
        *(setup, beside),
        ours=[contender(name, backends.OURS) for name in beside],
        others=[
            contender(name, way)
            for name in _all(beside)
            for way in ("NCHW", "channels-last")
        ],
        reference=functools.partial(reference, setup.batch),
        error=error,
        tolerance=_OF_STEP[setup.dtype],
    )


def _saved(work: str, name: str, peer: str) -> Quantity:
    """MB an image, beside another network's or as they are."""
    images = make_images(_BATCH, _CPU)

    def saved(network: str) -> float:
        san.set_attention_backend(backends.OURS)
        model = twin_networks.make(network).train()
        run = functools.partial(model, images)
        return saved_bytes(run, model) / (1e6 * _BATCH)

    def count() -> tuple[float, float]:
        as_it_is = peer == targets.ONE_MB
        return saved(name), 1.0 if as_it_is else saved(peer)

    gain = peer != targets.ONE_MB
    return Quantity(work, peer, "MB", count, gain=gain)
