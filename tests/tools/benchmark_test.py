import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch

import san
from san.ops import reference
from tools.benchmark import (
    core,
    eager_network,
    errors,
    measurement,
    networks,
    operators,
    peers,
    relations,
    report,
    rows,
    targets,
)
from tools.benchmark.measurement import Case, Contender, Quantity, Settings

CPU = Settings(torch.device("cpu"), rounds=2, attempts=1, turn_seconds=0.0)


class ScriptedClock:
    """Tells times from a list instead of the hour, over and over."""

    with_host = False

    def __init__(self, *seconds):
        self._seconds = list(seconds)

    def seconds(self, run, calls):
        run()
        self._seconds.append(self._seconds.pop(0))
        return self._seconds[-1]


def run_tool(*arguments, cwd=None, stop_after=lambda: False):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "tools.benchmark.main", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
    ) as process:
        while True:
            if stop_after():
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output = process.communicate(timeout=0.02)
                return subprocess.CompletedProcess(
                    command, process.returncode, *output
                )


def sum_case(peer=torch.sum, **fields):
    x = torch.arange(6.0)
    return Case(
        work="sum",
        ours=Contender("ours", lambda: x.sum()),
        peers=[Contender("peer", lambda: peer(x))],
        reference=lambda: torch.tensor(15.0),
        **fields,
    )


def test_a_ratio_is_of_two_turns_of_the_same_round():
    # The first two are for planning; then ours and the peer's, twice.
    clock = ScriptedClock(9, 9, 1, 4, 2, 6)
    (row,) = sum_case(clock=clock).measure(CPU)
    assert row.ratios == [4, 3]
    assert row.median == 3.5
    assert (row.ours, row.theirs) == (1500, 5000)


def test_a_wrong_result_is_reported_and_not_timed():
    (row,) = sum_case(peer=torch.mean).measure(CPU)
    assert (row.peer, row.ratios, row.wrong) == ("peer", [], True)
    assert "WRONG: error" in report.table([row])


def test_a_result_that_is_not_a_number_is_wrong():
    nan = torch.tensor(math.nan)
    assert errors.largest_error(nan, torch.tensor(1.0)) == math.inf
    assert errors.step_error(nan, torch.tensor(1.0)) == math.inf
    assert errors.largest_error(torch.ones(2), torch.ones(3)) == math.inf


def test_errors_are_relative_to_the_reference():
    a, b = torch.tensor([3.0, 10.0]), torch.tensor([4.0, 10.0])
    assert errors.largest_error(a, b) == pytest.approx(0.1)


def test_a_gradient_may_be_further_off_than_a_value():
    value, one, ten = (torch.tensor([x, 0.0]) for x in (2.0, 1.0, 10.0))
    reference = [value, one, ten]
    gradients = [value, 1.1 * one, ten]
    assert errors.step_error(gradients, reference) == pytest.approx(
        0.1 / math.sqrt(2)
    )
    assert errors.step_error([1.1 * value, one, ten], reference) == (
        pytest.approx(100)
    )


def test_a_gradient_that_cancels_counts_beside_the_others():
    reference = [torch.ones(1), torch.ones(1), torch.tensor([1e-15])]
    rounding = [torch.ones(1), torch.ones(1), torch.tensor([1e-8])]
    assert errors.step_error(rounding, reference) < 1e-4


def off_by(error):
    return Contender("ours", lambda: torch.tensor([1 + error]))


@pytest.mark.parametrize(
    ("ours", "eager", "wrong"),
    [(0.04, 0.01, False), (0.06, 0.01, True), (0.2, 0.19, True)],
)
def test_a_yardstick_says_how_far_rounding_goes(ours, eager, wrong):
    case = Case(
        work="one",
        ours=off_by(ours),
        peers=[dataclasses.replace(off_by(eager), name="eager")],
        reference=lambda: torch.ones(1),
        yardstick="eager",
    )
    row, *_ = case.measure(CPU)
    assert row.wrong == wrong


def test_a_slow_peer_has_one_turn():
    settings = dataclasses.replace(CPU, slow_seconds=8.0)
    clock = ScriptedClock(9, 9, 1, 4, 2)
    (row,) = sum_case(clock=clock).measure(settings)
    assert row.ratios == [4]


def test_the_best_peer_is_sought_among_those_that_had_a_turn():
    settings = dataclasses.replace(CPU, slow_seconds=8.0)
    case = dataclasses.replace(
        sum_case(clock=ScriptedClock(9, 9, 1, 4, 2)),
        work=targets.layers("aggregation forward", (0,))[0],
    )
    *_, best = case.measure(settings)
    assert (best.peer, best.ratios) == (targets.BEST_PEER, [4])


def test_there_is_no_best_peer_where_some_were_skipped():
    work = targets.layers("aggregation forward", (0,))[0]
    case = dataclasses.replace(sum_case(), work=work, skipped={"x": "why"})
    measured = case.measure(CPU)
    assert [row.peer for row in measured] == ["peer", "x"]
    assert "x: skipped: why (1 works)" in report.table(measured)


def test_what_is_noisy_is_measured_again():
    # No machine is so quiet that its ceilings drift by less than nothing.
    settings = dataclasses.replace(CPU, attempts=3, largest_drift=-1.0)
    runs = []
    x = torch.ones(3)
    case = Case(
        work="sum",
        ours=Contender("ours", lambda: runs.append(1)),
        peers=[Contender("peer", lambda: x.sum())],
        reference=None,
        clock=ScriptedClock(1),
    )
    case.measure(settings)
    assert len(runs) == 1 + 3 * settings.rounds


def test_drift_is_the_loss_of_the_slowest_round():
    assert measurement.drift([10.0, 8.0, 9.0]) == pytest.approx(0.2)


def test_noise_is_refused_and_named():
    quiet = rows.Row("steady", "peer", [2.0], noise=0.14)
    noisy = rows.Row("shaky", "peer", [2.0], noise=0.25)
    assert report.problems([quiet]) == ""
    message = report.problems([quiet, noisy])
    assert "shaky: 25%" in message
    assert "steady" not in message
    assert "noisy: 25%" in report.table([noisy])


def test_verdicts_follow_the_target():
    more = targets.Target(("w",), "p", 2, 4, 8)
    less = targets.Target(("w",), "p", 5, 2, 1, smaller_is_better=True)
    words = ["BELOW FLOOR", "floor", "attainable", "moonshot"]
    assert [more.verdict(ratio) for ratio in (1.9, 2, 4, 8)] == words
    assert [less.verdict(ratio) for ratio in (5.1, 5, 2, 1)] == words


def test_several_works_are_judged_by_their_geometric_mean():
    target = next(t for t in targets.TARGETS if t.summary)
    parts = [
        rows.Row(work, target.peer, [2.0, 2.0 * 8**place])
        for place, work in enumerate(target.works)
    ]
    *same, mean = rows.judge(parts, "cpu")
    assert same == parts
    assert mean.target == target
    assert mean.ratios == pytest.approx([2, 16])


def test_a_mean_is_not_taken_of_some_of_its_works():
    target = next(t for t in targets.TARGETS if t.summary)
    part = rows.Row(target.works[0], target.peer, [2.0])
    assert rows.judge([part], "cpu") == [part]


def test_each_target_is_in_reach_of_a_row():
    works = {
        entry.work
        for section in (operators, core, networks, relations)
        for entry in section.entries(CPU)
    }
    for target in targets.TARGETS:
        is_listed = "layer" in target.works[0] or target.peer == "unfold"
        if target.device == "cpu" and is_listed:
            assert set(target.works) <= works


def test_targets_get_harder_from_left_to_right():
    for t in targets.TARGETS:
        steps = [t.floor, t.attainable, t.moonshot]
        assert steps == sorted(steps, reverse=t.smaller_is_better)


def test_a_quantity_compares_counts():
    (row,) = Quantity("w", "p", "MB", lambda: (2.0, 6.0)).measure(CPU)
    assert (row.ratios, row.ours, row.theirs, row.unit) == ([3], 2, 6, "MB")


@pytest.mark.parametrize(
    "way",
    [
        peers.unfold_aggregation,
        peers.einsum_aggregation,
        peers.loop_aggregation,
    ],
)
def test_peers_aggregate(way):
    x, weight = torch.randn(2, 6, 5, 9), torch.randn(2, 3, 9, 45)
    expected = reference.aggregation(x, weight, 3, padding=1)
    torch.testing.assert_close(way(x, weight, 3), expected)


@pytest.mark.parametrize(
    "way", [peers.unfold_subtraction2, peers.loop_subtraction2]
)
def test_peers_subtract(way):
    a, b = torch.randn(2, 2, 3, 5, 9)
    expected = reference.subtraction2(a, b, 5, padding=2)
    torch.testing.assert_close(way(a, b, 5), expected)


def test_gradients_written_by_hand_are_those_of_autograd():
    x = torch.randn(2, 6, 5, 9, requires_grad=True)
    weight = torch.randn(2, 3, 9, 45, requires_grad=True)
    y = reference.aggregation(x, weight, 3, padding=1)
    seed = torch.randn_like(y)
    torch.testing.assert_close(
        peers.loop_aggregation_gradients(seed, x.detach(), weight.detach(), 3),
        torch.autograd.grad(y, (x, weight), seed),
    )
    b = torch.randn(2, 6, 5, 9, requires_grad=True)
    y = reference.subtraction2(x, b, 3, padding=1)
    seed = torch.randn_like(y)
    torch.testing.assert_close(
        peers.loop_subtraction2_gradients(seed, b.detach(), 3),
        torch.autograd.grad(y, (x, b), seed),
    )


@pytest.mark.parametrize("operators_of", [peers.Unfold, peers.Kernels])
@pytest.mark.parametrize("name", ["san10_pair", "san10_patch"])
def test_the_eager_network_is_san(name, operators_of):
    torch.manual_seed(0)
    ours = san.create_model(name).eval()
    eager_network.draw_norms(ours)
    eager = eager_network.EagerSAN(name, operators_of).eval()
    eager.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(
            eager(images), ours(images), rtol=1e-3, atol=1e-4
        )


def test_saved_tensors_count_once_and_without_parameters():
    layer = torch.nn.Linear(3, 5)
    x = torch.randn(7, 3)

    def run():
        y = layer(x)
        return y * y

    # x and y, each of which is saved for two derivatives or one.
    assert networks.saved_bytes(run, layer) == 4 * (7 * 3 + 7 * 5)


@pytest.mark.parametrize("kind", ["pair", "patch"])
def test_cores_agree(kind):
    ours, eager = core.make_pair(kind, 64, 5, torch.device("cpu"))
    phi, psi = torch.randn(2, 2, 4, 7, 6)
    beta = torch.randn(2, 16, 7, 6)
    expected = eager(phi, psi, beta)
    for backend in ("fused", "unfused"):
        san.set_attention_backend(backend)
        inputs = core.inputs_of(backend, (phi, psi, beta))
        torch.testing.assert_close(ours(*inputs), expected)


def test_the_tool_measures_and_writes(tmp_path):
    done = run_tool(
        *("ops", "--quick", "--rounds=1", "--allow_noise"),
        *("--only=forward, layer 4", "--json=out.json", "--plot=out.svg"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "aggregation forward, layer 4" in done.stdout
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["torch"] == torch.__version__
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
    measured = [report.read_row(row) for row in content["rows"]]
    found = {(row.work, row.peer) for row in measured if row.ratios}
    assert ("aggregation forward, layer 4", "unfold") in found
    assert ("subtraction2 forward, layer 4", "tap loop") in found
    assert not any(row.wrong for row in measured)


def test_the_tool_refuses_to_report_noise(tmp_path):
    done = run_tool(
        *("growth", "--only=footprint 3|batch 1$", "--json=out.json"),
        *("--quick", "--rounds=1", "--largest_drift=-1"),
        cwd=tmp_path,
    )
    assert done.returncode == 3
    assert "the machine is too noisy" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["op"], "subcommand must be one of ops, core, models"),
        ([], "got none"),
        (["ops", "--only=nowhere"], "no work matches 'nowhere'"),
        (["ops", "--threads=0"], "threads"),
        (["ops", "--device=cuda"], "must find a GPU"),
    ],
)
def test_wrong_flags(arguments, message, tmp_path):
    done = run_tool(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_a_work_that_fails_is_reported_and_the_next_is_measured(capfd):
    def fail():
        raise OSError("no memory\nat all")

    entries = [
        measurement.Entry("bad", fail),
        measurement.Entry("sum", lambda: sum_case(clock=ScriptedClock(1))),
    ]
    (bad,), (good,) = measurement.measure_all(entries, CPU)
    assert (bad.work, bad.wrong) == ("bad", True)
    assert "FAILED: OSError: no memory" in report.table([bad])
    assert 'raise OSError("no memory' in capfd.readouterr().err
    assert good.ratios == [1, 1]


def test_what_was_measured_is_there_after_each_work(tmp_path):
    done = run_tool(
        *("startup", "--quick", "--rounds=1", "--allow_noise"),
        *("--only=import|bits", "--json=out.json", "--table=out.txt"),
        cwd=tmp_path,
        stop_after=lambda: (tmp_path / "out.txt").exists(),
    )
    assert done.returncode == -signal.SIGKILL
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["works"] == "1 of 2"
    assert [row["work"] for row in content["rows"]] == ["import san"]
    assert "works: 1 of 2" in (tmp_path / "out.txt").read_text()
