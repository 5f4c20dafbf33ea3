"""What is measured beside the loss: waiting, gradients, memory."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from san import data
from tests.train import jobs
from train import memory, metrics, optimization
from train.waiting import DataWait


@pytest.fixture
def clock(monkeypatch):
    """Time stands still but for what a test adds to it."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def slowly(clock, seconds):
    for number, wait in enumerate(seconds):
        clock[0] += wait
        yield number


def test_only_the_waiting_counts(clock):
    wait = DataWait(torch.device("cpu"))
    assert wait.read() == 0.0
    numbers = []
    for number in wait.during(slowly(clock, [2.0, 3.0, 0.0])):
        numbers.append(number)
        clock[0] += 100
    assert numbers == [0, 1, 2]
    assert wait.read() == 5.0
    assert wait.read() == 0.0


def test_each_reading_starts_again(clock):
    wait = DataWait(torch.device("cpu"))
    batches = wait.during(slowly(clock, [2.0, 4.0]))
    for seconds in (2.0, 4.0):
        next(batches)
        clock[0] += 100
        assert wait.read() == seconds


def test_an_error_of_the_data_comes_through():
    with pytest.raises(data.DataError, match="damaged"):
        list(DataWait(torch.device("cpu")).during(damaged()))


def damaged():
    yield 1
    raise data.DataError("damaged")


def test_the_norm_is_of_all_gradients_that_there_are():
    layers = nn.Sequential(nn.Linear(2, 1), nn.Linear(3, 2))
    layers[0].weight.grad = torch.tensor([[2.0, 3.0]])
    layers[0].bias.grad = torch.tensor([6.0])
    norm = optimization.gradient_norm(layers.parameters())
    assert norm == 7.0 and not norm.requires_grad
    assert optimization.gradient_norm([]) == 0.0


def test_the_peak_is_of_all_the_process():
    name, before = memory.peak_mib(torch.device("cpu"))
    np.ones(int(before * 2**20 / 8) + 10_000_000)
    name, after = memory.peak_mib(torch.device("cpu"))
    assert name == "peak_process_mib"
    assert after > before + 60


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def test_a_log_has_all_of_it(tmp_path, images, monkeypatch):
    epoch = data.TrainingLoader.epoch

    def slow_epoch(*arguments, **names):
        for batch in epoch(*arguments, **names):
            time.sleep(0.1)
            yield batch

    monkeypatch.setattr(data.TrainingLoader, "epoch", slow_epoch)
    norms = []
    norm_of = optimization.gradient_norm

    def kept_norm(parameters):
        norms.append(norm_of(parameters))
        return norms[-1]

    monkeypatch.setattr(optimization, "gradient_norm", kept_norm)
    jobs.configure(tmp_path, "Recipe.log_every_steps = 3", "Recipe.epochs = 1")
    folder = jobs.train(tmp_path / "run", images)
    first, last, _ = metrics.read(folder.metrics)
    # Three steps, and the one that ends the epoch.
    assert first["gradient_norm"] == pytest.approx(
        float(torch.stack(norms[:3]).mean())
    )
    assert last["gradient_norm"] == pytest.approx(float(norms[3]))
    for line in (first, last):
        assert 0.1 < line["data_wait_share"] < 1
        assert line["learning_rate"] == 0.02
        assert line["peak_process_mib"] > 10
