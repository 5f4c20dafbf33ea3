"""Training in two processes, as torchrun starts them, equals one process."""

import pytest
import torch

from tests.train import jobs

# Odd slices: 7 images a step are 3 and 4, 15 validation images 7 and 8.
SETTINGS = ["--batch_size=7", "--gin_param=Recipe.learning_rate=0.01"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The last checkpoints of one process and of two."""
    folder = tmp_path_factory.mktemp("runs")
    images = jobs.write_images(folder / "images")
    return jobs.train_one_and_two(folder, images, *SETTINGS)


def test_same_weights_within_rounding(runs):
    (one, two), _ = runs
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, expected in one["state_dict"].items():
        torch.testing.assert_close(
            two["state_dict"][name], expected, rtol=1e-3, atol=1e-4, msg=name
        )


def test_same_figures_over_all_images(runs):
    (one, two), _ = runs
    for name in ("latest", "best"):
        expected, found = one["state"][name], two["state"][name]
        assert found["num_images"] == expected["num_images"] == 15
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert found["top1"] == expected["top1"]
        assert found["top5"] == expected["top5"]


def test_only_the_first_process_reports(runs):
    _, (_, (_, first_out, first_err), (_, other_out, other_err)) = runs
    assert "best checkpoint" in first_out
    assert first_err.count("epoch") == 2
    # torch's own warnings may come from any process.
    assert not other_out and "epoch" not in other_err
