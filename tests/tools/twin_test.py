"""The benchmark's section twin, on small networks and by the real runtimes."""

import contextlib
import dataclasses
import os
import subprocess
import sys

import openvino
import pytest
import torch
from torch import nn

import san
from tools.benchmark import (
    accuracy,
    plot,
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
from tools.benchmark.twin_case import EXPORTED, Beside, Setup

CPU = Settings(torch.device("cpu"), rounds=2, attempts=1, turn_seconds=0.0)
BESIDE = {
    "san10_pair": ("resnet26", "san10_pair" + EXPORTED),
    "san10_patch": ("resnet26",),
}
NETWORKS = {
    "san10_pair": lambda: small_san(san.PairwiseAttention),
    "san10_patch": lambda: small_san(san.PatchwiseAttention),
    "resnet26": lambda: san.ResNet((1, 1, 1, 1), 9, widths=(8, 8, 8, 8)),
}


def small_san(attention):
    sizes = {"num_blocks": (1,), "kernel_sizes": (3,), "widths": (32,)}
    return san.SAN(attention, num_classes=9, **sizes)


def small_network(name):
    """A network, and one that computes by torch's own layers in float64."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(NETWORKS[name]())
        draw_norms(models[-1])
    return models


def small_beside(setup, quick):
    exported = setup.mode == "inference"
    return {ours: others[: 1 + exported] for ours, others in BESIDE.items()}


def small_images(batch, device):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 41, 37, generator=generator)


@pytest.fixture(scope="module", autouse=True)
def small():
    """In place of the published networks, and of 224 x 224 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin_networks, "_make", small_network)
        patch.setattr(twin, "_beside", small_beside)
        for module in (twin, twin_networks):
            patch.setattr(module, "make_images", small_images)
        yield


def rows_of(rows, network):
    return [row for row in rows if row.work.startswith(network + " ")]


def test_every_way_is_checked_and_timed(tmp_path):
    setup = Setup("inference", 3, torch.float32, 1)
    rows = twin._inference(setup, False).measure(CPU)
    assert all(len(row.ratios) == CPU.rounds for row in rows)
    resnet = [
        "resnet26, NCHW",
        "resnet26, channels-last",
        "resnet26, compiled and frozen",
        "resnet26, ONNX Runtime",
        "resnet26, OpenVINO",
    ]
    pair, patch = (rows_of(rows, name) for name in BESIDE)
    assert [row.peer for row in pair] == [
        *resnet,
        "san10_pair exported, ONNX Runtime",
        "san10_pair exported, OpenVINO",
        "resnet26, best",
        "san10_pair exported, best",
    ]
    assert [row.peer for row in patch] == [*resnet, "resnet26, best"]
    assert pair[0].work == "san10_pair inference, batch 3, float32, 1 thread"
    # Both beside the same turns.
    assert [row.theirs for row in pair[:5]] == [r.theirs for r in patch[:5]]
    assert pair[7].theirs == min(row.theirs for row in pair[:5])


def test_in_bfloat16_too(monkeypatch):
    def compiled(model, images, threads, autocast):
        return ways.eager(model, images, autocast)

    monkeypatch.setattr(ways, "compiled", compiled)  # Tested below.
    monkeypatch.setattr(twin_case, "bfloat16_is_fast", lambda: False)
    setup = Setup("inference", 1, torch.bfloat16, 2)
    rows = twin._inference(setup, False).measure(CPU)
    resnet = [
        "resnet26, channels-last, cast",
        "resnet26, channels-last, autocast",
        "resnet26, compiled and frozen",
    ]
    *measured, best = rows_of(rows, "san10_patch")
    for row in measured:
        assert row.ratios or "skipped: OpenVINO computes in f32" in row.note
    assert [row.peer for row in measured][:3] == resnet
    assert best.peer == "resnet26, best, but bfloat16 is slow here"
    assert judge([best], "cpu")[0].target is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_compared(dtype):
    setup = Setup("training step", 8, dtype, 1)
    rows = judge(twin._training(setup, False).measure(CPU), "cpu")
    pair = rows_of(rows, "san10_pair")
    assert [row.peer for row in pair] == [
        "resnet26, NCHW",
        "resnet26, channels-last",
        "resnet26, best",
    ]
    fast = dtype == torch.float32 or twin_case.bfloat16_is_fast()
    assert [bool(row.target) for row in pair] == [False, False, fast]


@pytest.mark.parametrize("mode", ["inference", "training step"])
def test_what_computes_something_else_is_not_timed(mode, monkeypatch):
    setup = Setup(mode, 2, torch.float32, 1)
    monkeypatch.setattr(twin, "_ways", lambda *_: {})
    build = twin._inference if mode == "inference" else twin._training
    made = build(setup, False)

    def reference(name):
        right = made.reference(name)
        if name != "san10_patch":
            return right
        return 1.5 * right if mode == "inference" else [1.5 * t for t in right]

    rows = dataclasses.replace(made, reference=reference).measure(CPU)
    assert rows and all(row.wrong for row in rows)
    assert all(row.peer.startswith("san10_patch, ") for row in rows)


def test_networks_of_ours_share_their_peers_turns():
    case = Beside(
        setup=Setup("inference", 8, torch.float32, 1),
        beside={"san10_pair": ("resnet26",), "san10_patch": ("resnet50",)},
        ours=(),
        others=(),
        reference=lambda name: name,
        error=max,
        tolerance=0,
    )
    by_peer = {
        name: Row("", name, ratios, 10, theirs)
        for name, ratios, theirs in (
            ("san10_patch, folded", [2.0, 4.0], 30),
            ("resnet26, NCHW", [1.0, 2.0], 15),
            ("resnet26, OpenVINO", [0.5, 0.8], 7),
            ("resnet50, NCHW", [8.0], 80),
        )
    }
    pair = case._rows_of("san10_pair", by_peer)
    assert [(r.peer, r.ratios, r.ours, r.theirs) for r in pair] == [
        ("resnet26, NCHW", [1.0, 2.0], 10, 15),
        ("resnet26, OpenVINO", [0.5, 0.8], 10, 7),
        ("resnet26, best", [0.5, 0.8], 10, 7),
    ]
    (patch,) = case._rows_of("san10_patch", by_peer)
    assert (patch.ratios, patch.ours, patch.theirs) == ([4.0], 30, 80)


@pytest.mark.parametrize(
    ("used", "after", "message"),
    [
        (0.9, 0.0, None),
        (1.9, 0.0, "NAME must use 1 threads, got 1.9 cores"),
        (0.9, 0.5, "NAME must leave the processor .* got 0.5 cores"),
    ],
)
def test_ways_are_held_to_their_threads(used, after, message, monkeypatch):
    start = 5.0
    clock = iter([start, start + 2.0])
    busy = iter([1.0, 1.0 + 2 * used, 1.0 + 2 * used + 0.1 * after])
    monkeypatch.setattr(twin_case.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(twin_case, "_processor_seconds", lambda: next(busy))
    expected = contextlib.nullcontext()
    if message:
        expected = pytest.raises(RuntimeError, match=message)
    with expected:
        twin_case.check_threads("NAME", lambda: None, 1)


def norm_after_convolution():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    draw_norms(model)
    return model.eval(), torch.randn(1, 3, 9, 9)


def test_compiled_for_some_threads_it_runs_on_no_others():
    model, images = norm_after_convolution()
    run = ways.compiled(model, images, 2)
    torch.testing.assert_close(run(), ways.eager(model, images)())
    torch.set_num_threads(1)
    with pytest.raises(RuntimeError, match="num_threads"):
        run()


def test_compiled_and_not_frozen_is_an_error(monkeypatch):
    monkeypatch.setitem(ways._COMPILING, "freezing", False)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="must fold the norms"):
        ways.compiled(*norm_after_convolution(), 1)


def test_openvino_in_another_precision_is_left_out(monkeypatch):
    file = twin._file("resnet26")
    monkeypatch.setattr(
        openvino.CompiledModel, "get_property", lambda *_: openvino.Type.f32
    )
    with pytest.raises(runtimes.UnsupportedError, match="computes in f32"):
        runtimes.by_openvino(file, small_images(1, "cpu"), 1, torch.bfloat16)


def test_saved_bytes_are_counted():
    entries = [e for e in twin.entries(CPU) if "saved" in e.work]
    rows = [row for e in entries for row in e.build().measure(CPU)]
    assert [(row.work, row.peer) for row in rows] == [
        (targets.saved_work(name, 8), peer)
        for name in BESIDE
        for peer in ("one MB", "resnet26")
    ]
    for itself, beside in zip(rows[::2], rows[1::2], strict=True):
        assert 0.01 < itself.ours == beside.ours < 1
        assert itself.ratios == [itself.ours]
        assert beside.ratios == [beside.theirs / beside.ours]


def test_each_target_is_in_reach_of_an_entry():
    works = {entry.work for entry in twin.entries(Settings(CPU.device))}
    found = [
        target.works[0]
        for target in targets.TARGETS
        if "thread" in target.works[0]
        and "san10" in target.works[0]
        and "batch" in target.works[0]
    ]
    assert len(found) == 24
    for work in found:
        assert work.partition(" ")[2] in works
    assert targets.saved_work("san10_pair", 8) in works


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threads": 3}, "--threads must be left out, .* got 3"),
        ({"batch": 4}, "--batch must be left out, .* got 4"),
        ({"device": torch.device("cuda")}, "--device must .* got cuda"),
    ],
)
def test_settings_without_effect_are_errors(setting, message):
    with pytest.raises(ValueError, match=message):
        twin.entries(dataclasses.replace(CPU, **setting))


def test_the_command_says_what_is_wrong():
    done = subprocess.run(
        [sys.executable, "-m", "tools.benchmark.main", "twin", "--threads=3"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert "benchmark twin: --threads must be left out" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plot_has_the_networks_that_were_measured(tmp_path):
    def row(network, twin_name, ours, theirs):
        work = targets.twin_work(network, "inference", 8, "float32", 1)
        peer = targets.best_of(twin_name)
        return Row(work, peer, [theirs / ours], ours, theirs)

    rows = judge(
        [
            row("san10_pair", "resnet26", 400.0, 320.0),
            row("san15_patch", "resnet38", 640.0, 560.0),
        ],
        "cpu",
    )
    assert accuracy.points(rows) == [
        ("resnet26", "conv", 40.0, 73.6),
        ("san10_pair", "pair", 50.0, 74.9),
        ("resnet38", "conv", 70.0, 76.0),
        ("san15_patch", "patch", 80.0, 78.0),
    ]
    plot.draw(tmp_path / "twin.svg", "twin", rows)
    assert (tmp_path / "twin.svg").read_text().startswith("<?xml")
    assert accuracy.points([Row("other", "peer", [1.0], 1.0, 1.0)]) == []
