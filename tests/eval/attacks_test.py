"""Attacks on the images of a folder: targets, counts, outcomes."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import san
from eval import attack_checks, attacks, loading
from eval.attacked_batch import Attack, Batch, PixelNetwork
from eval.attacks import Outcome
from san.jobs.processes import Process
from tests.train import jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"), num_classes=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A trained work folder."""
    folder = tmp_path_factory.mktemp("run")
    jobs.configure(folder, "Recipe.learning_rate = 0.05")
    return jobs.train(folder / "run", images)


@pytest.fixture(autouse=True)
def settings(tmp_path):
    jobs.configure(tmp_path)


def measure(run, *settings, batch_size=4, seed=0, num_images=None):
    with loading.load(run.last, None, None, Process(), num_images) as trained:
        return attacks.measure(trained, settings, batch_size, seed)


def batch(labels, num_classes, seed=0, numbers=None):
    numbers = np.arange(len(labels)) if numbers is None else numbers
    generator = torch.Generator().manual_seed(7)
    pixels = torch.rand(len(labels), 3, 4, 4, generator=generator)
    return Batch(pixels, torch.tensor(labels), numbers, num_classes, seed)


def test_targets_are_wrong_and_equally_likely():
    labels = [0, 1, 2, 3] * 1000
    targets = batch(labels, 4).targets()
    assert not (targets == torch.tensor(labels)).any()
    for label in range(4):
        of_label = targets[label::4]
        counts = torch.bincount(of_label, minlength=4)
        assert counts[label] == 0
        # 333 expected, with a standard deviation of 15.
        assert all(270 < c < 400 for c in counts.tolist() if c)
        assert (counts > 0).sum() == 3


def test_a_target_follows_the_images_number_and_the_seed_alone():
    labels = [0, 1, 2, 3, 4] * 8
    numbers = np.arange(40)
    whole = batch(labels, 10).targets()
    for size in (1, 3, 40):
        parts = [
            batch(
                labels[place : place + size],
                10,
                numbers=numbers[place : place + size],
            ).targets()
            for place in range(0, 40, size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(batch(labels, 10, seed=1).targets(), whole)


def test_two_classes_leave_no_choice():
    assert batch([0, 1, 1], 2).targets().tolist() == [1, 0, 0]


class Recorder(nn.Module):
    """Says a class, whatever it sees, and keeps what it saw."""

    def __init__(self, num_classes, answer):
        super().__init__()
        self.scores = nn.functional.one_hot(torch.tensor(answer), num_classes)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.scores + 0 * x.sum((1, 2, 3))[:, None]


def test_counts_by_hand():
    # Targets 1, 0, 0: the answer 1 fools the first and is right of the others.
    images = batch([0, 1, 1], 2)
    network = Recorder(2, 1)
    assert images.unattacked(network).tolist() == [1, 2]
    assert images.attacked(network, Attack(8, 2, 1)).tolist() == [1, 2]


def test_starts_go_on_with_those_that_resist():
    images = batch([0, 1, 1], 2)
    network = Recorder(2, 1)
    images.attacked(network, Attack(51, 0, 1, starts=3))
    # A step and a look for each start.
    assert [len(seen) for seen in network.seen] == [3, 3, 2, 2, 2, 2]
    assert torch.equal(network.seen[0], images.pixels)
    first, second = network.seen[2], network.seen[4]
    assert not torch.equal(first, second)
    for start in (first, second):
        moved = (start - images.pixels[1:]).abs()
        assert 0.15 < moved.max() <= 0.2001
        assert 0 <= start.min() and start.max() <= 1


def test_noise_follows_the_images_number_alone():
    network, attack = Recorder(2, 1), Attack(51, 0, 1, starts=2)
    images = batch([1, 1, 1], 2)
    images.attacked(network, attack)
    together = network.seen[2]
    for place in range(3):
        part = slice(place, place + 1)
        alone = dataclasses.replace(
            images,
            pixels=images.pixels[part],
            labels=images.labels[part],
            numbers=images.numbers[part],
        )
        network.seen.clear()
        alone.attacked(network, attack)
        assert torch.equal(network.seen[2], together[part])


def test_pixels_and_normalisation():
    network = PixelNetwork(nn.Identity(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(network.pixels(network(pixels)), pixels)
    assert network.pixels(torch.full((1, 3, 1, 1), 9.0)).max() == 1


def test_every_image_counts_once(run):
    stronger = Attack(64, 8, 12, starts=2, loss="margin")
    none, weak, strong = measure(run, Attack(8, 4, 2), stronger)
    assert none.attack is None and weak.attack == Attack(8, 4, 2)
    assert strong.success > weak.success >= none.success
    assert strong.top1 < none.top1
    for outcome in (none, weak, strong):
        assert outcome.top1 * 15 / 100 == pytest.approx(
            round(outcome.top1 * 15 / 100)
        )


def test_settings_of_the_paper_and_a_strong_one():
    assert attacks.PUBLISHED == (Attack(8, 4, 2), Attack(8, 2, 4))
    strong = attacks.STRONG
    assert strong.epsilon == 8 and strong.step * strong.iterations > 2 * 8
    assert strong.iterations >= 50 and strong.starts > 1
    assert strong.loss == "margin"


def test_no_attack_is_validation(run):
    with loading.load(run.last, None, None, Process()) as trained:
        logits = [trained.model.eval()(x) for x, _ in trained.batches(4)]
        labels = torch.cat([y for _, y in trained.batches(4)])
        (none,) = attacks.measure(trained, [], 4, 0)
    right = torch.cat(logits).argmax(1) == labels
    assert none.top1 == pytest.approx(100 * right.double().mean().item())


def test_the_same_seed_gives_the_same_bits(run):
    settings = (*attacks.PUBLISHED, Attack(8, 1, 9, starts=3, loss="margin"))
    assert measure(run, *settings) == measure(run, *settings)


def test_networks_on_both_backends(run):
    outcomes = {}
    for backend in ("fused", "unfused"):
        jobs.config.parse(
            [str(jobs.write_settings(run.path))],
            [f"set_attention_backend.name = '{backend}'"],
        )
        outcomes[backend] = measure(run, *attacks.PUBLISHED)
    san.set_attention_backend()
    for fused, unfused in zip(*outcomes.values(), strict=True):
        # An image at the border of two classes may fall on either side.
        assert fused.success == pytest.approx(unfused.success, abs=7)
        assert fused.top1 == pytest.approx(unfused.top1, abs=7)


def test_a_part_keeps_the_targets_of_the_whole(run):
    with loading.load(run.last, None, None, Process(), 5) as trained:
        assert trained.numbers.tolist() == [0, 3, 6, 9, 12]
        assert trained.index.labels.tolist() == [0, 0, 1, 1, 2]
    with (
        pytest.raises(ValueError, match=r"--num_images must .* \(15\), got 16"),
        loading.load(run.last, None, None, Process(), 16),
    ):
        pass


def test_one_class_has_no_wrong_one(tmp_path):
    jobs.configure(tmp_path, "Recipe.label_smoothing = 0.0")
    folder = jobs.write_images(tmp_path / "one", num_classes=1)
    run = jobs.train(tmp_path / "run", folder)
    with pytest.raises(ValueError, match=r"at least 2 classes.* got 1"):
        measure(run, Attack(8, 4, 2))


def outcomes_of(successes, last_top1):
    outcomes = [
        Outcome(attack, success, 50.0)
        for attack, success in zip(
            attack_checks.ATTACKS, successes, strict=True
        )
    ]
    outcomes[-1] = dataclasses.replace(outcomes[-1], top1=last_top1)
    return outcomes


def test_checks_of_a_network_that_hides_nothing():
    lines = attack_checks.verdicts(
        outcomes_of([1, 5, 40, 80, 79.5, 99, 99, 100, 100], 0.0)
    )
    assert "never weaker: yes" in lines[0]
    assert "leaves nothing right: yes" in lines[1]


def test_checks_of_masked_gradients():
    lines = attack_checks.verdicts(
        outcomes_of([1, 5, 40, 30, 30, 30, 30, 30, 30], 20.0)
    )
    assert "never weaker: NO, gradients may be masked" in lines[0]
    assert "success 1.00, 5.00, 40.00, 30.00" in lines[0]
    assert "leaves nothing right: NO, gradients may be masked" in lines[1]
