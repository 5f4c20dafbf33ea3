"""The benchmark's section twin, on small networks and by the real runtimes."""

import dataclasses
import math
import threading

import pytest
import torch
from torch import nn

import san
from tools.benchmark import (
    runtimes,
    targets,
    twin,
    twin_case,
    twin_networks,
    ways,
)
from tools.benchmark.eager_network import draw_norms
from tools.benchmark.measurement import Settings
from tools.benchmark.rows import Row, judge
from tools.benchmark.twin_case import Beside, Setup

CPU = Settings(torch.device("cpu"), rounds=2, attempts=1, turn_seconds=0.0)
SMALL = {
    "san10_pair": lambda: small_san(san.PairwiseAttention),
    "san10_patch": lambda: small_san(san.PatchwiseAttention),
    "resnet26": lambda: san.ResNet((1, 1, 1, 1), 5, widths=(8, 8, 8, 8)),
}
ONE = Setup("inference", 3, torch.float32, 1)


def small_san(attention):
    return san.SAN(
        attention,
        num_blocks=(1,),
        kernel_sizes=(3,),
        widths=(32,),
        num_classes=5,
    )


def make(name):
    """A small network, and what it should give, which is computed otherwise."""
    torch.manual_seed(0)
    model = SMALL[name]()
    draw_norms(model)
    torch.manual_seed(0)
    plain = SMALL[name]()
    plain.load_state_dict(model.state_dict())
    return model, plain


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def make_images(batch, device):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, 3, 41, 41, generator=generator)

    monkeypatch.setattr(twin_networks, "_make", make)
    for module in (twin, twin_networks):
        monkeypatch.setattr(module, "make_images", make_images)
    yield
    for cached in (
        *(twin_networks.logits, twin_networks.logits_in_training),
        *(twin_networks.step, twin._file),
    ):
        cached.cache_clear()


def measure(setup, quick=False):
    beside = {
        name: ("resnet26", name + twin_case.EXPORTED)
        for name in ("san10_pair", "san10_patch")
    }
    build = twin._inference if setup.mode == "inference" else twin._training
    if setup.mode != "inference":
        beside = {name: others[:1] for name, others in beside.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin, "_beside", lambda *_: beside)
        return build(setup, quick).measure(CPU)


def peers(rows, network):
    return {row.peer: row for row in rows if row.work.startswith(network + " ")}


@pytest.mark.parametrize("threads", [1, 2])
def test_every_way_is_checked_and_timed(threads):
    rows = measure(dataclasses.replace(ONE, threads=threads))
    assert [row.note for row in rows if not row.ratios] == []
    for network in ("san10_pair", "san10_patch"):
        found = peers(rows, network)
        assert list(found) == [
            "resnet26, NCHW",
            "resnet26, channels-last",
            "resnet26, compiled and frozen",
            "resnet26, ONNX Runtime",
            "resnet26, OpenVINO",
            f"{network} exported, ONNX Runtime",
            f"{network} exported, OpenVINO",
            "resnet26, best",
            f"{network} exported, best",
        ]
        assert all(len(row.ratios) == CPU.rounds for row in found.values())
