import math

import pytest

import san
from san.jobs import config, network
from train.checkpointing import Validation
from train.sweep import figures
from train.sweep.plan import Plan, Run, find_rows


def names(*arguments):
    return [row.row for row in find_rows(*arguments)]


def test_rows_are_found_by_table_kind_and_name():
    every = [row.row for row in san.paper_rows()]
    assert names([], None, []) == every
    of_table = [row for row in every if row.startswith("table4/")]
    assert names(["4"], None, []) == of_table
    assert names(["5.3"], None, []) == ["table5.3/sasa"]
    pairwise = [row for row in of_table if row.startswith("table4/pair/")]
    assert names(["4"], "pair", []) == pairwise
    assert names(["4"], "pair", ["dot"]) == ["table4/pair/dot"]
    # In the paper's order, not in the one asked for.
    assert names(["8", "4"], "pair", ["none", "table4/pair/hadamard"]) == [
        "table4/pair/hadamard",
        "table8/pair/none",
    ]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            (["9"], None, []),
            "--table must be of 3, 4, 5, 6, 7, 8, 5.3, got '9'",
        ),
        ((["4"], "conv", []), "--kind must be one that --table has, got conv"),
        ((["4"], None, ["hadamart"]), "'hadamart'; the nearest is 'hadamard'"),
        ((["4"], "patch", ["dot"]), "--rows must be among star, clique, conc"),
    ],
)
def test_rows_that_are_not_there(wanted, message):
    with pytest.raises(ValueError, match=message):
        find_rows(*wanted)


def plan(num_seeds, num_folds):
    return Plan(find_rows(["4"], "pair", ["dot"]), num_seeds, num_folds)


def test_runs_and_their_folders():
    assert [run.folder for run in plan(2, 2).runs] == [
        f"table4-pair-dot/seed{seed}-fold{fold}"
        for seed in range(2)
        for fold in range(2)
    ]
    (run,) = plan(1, 0).runs
    assert run.folder == "table4-pair-dot/seed0"
    assert run.bindings == [
        "create_model.name = 'table4/pair/dot'",
        "Recipe.seed = 0",
    ]
    assert plan(1, 2).runs[1].bindings[2:] == ["digits.fold = 1"]
    assert plan(3, 5).place(Run("table4/pair/dot", 1, 4)) == (
        "row 1 of 1, seed 2 of 3, fold 5 of 5"
    )


@pytest.mark.parametrize(
    "row", ["table4/pair/hadamard", "table7/patch/11", "table7/conv/7"]
)
def test_small_networks_fit_the_digits(row):
    config.parse(["digits_small.gin"], [f"create_model.name = {row!r}"])
    network.try_network()
    model = san.create_model(num_classes=10)
    assert sum(p.numel() for p in model.parameters()) < 2_000_000


def validation(top1, num_images, top5=100.0):
    return Validation(8, top1, top5, 0.1, num_images)


def test_folds_are_pooled_by_images_and_seeds_averaged():
    validations = {
        Run("table4/pair/dot", 0, 0): validation(90.0, 10),
        Run("table4/pair/dot", 0, 1): validation(100.0, 30, 80.0),
        Run("table4/pair/dot", 1, 0): validation(70.0, 10),
        Run("table4/pair/dot", 1, 1): validation(90.0, 30),
    }
    found = figures.measure(plan(2, 2), "table4/pair/dot", validations)
    assert found.top1_of_seeds == [97.5, 85.0]
    assert found.top1 == 91.25
    assert found.top5 == 92.5
    assert found.num_images == 40
    assert found.spread == pytest.approx(12.5 / math.sqrt(2))
    assert found.interval == figures.wilson_interval(91.25, 40)
    del validations[Run("table4/pair/dot", 1, 1)]
    assert not figures.measure(plan(2, 2), "table4/pair/dot", validations)


@pytest.mark.parametrize(
    ("percent", "count", "expected"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (100 * 81 / 263, 263, (25.53, 36.62)),
        (100 * 15 / 148, 148, (6.24, 16.05)),
        (0.0, 20, (0.0, 16.11)),
        (100 / 29, 29, (0.61, 17.18)),
        (100.0, 20, (83.89, 100.0)),
    ],
)
def test_wilson_interval(percent, count, expected):
    found = figures.wilson_interval(percent, count)
    assert found == pytest.approx(expected, abs=0.006)
