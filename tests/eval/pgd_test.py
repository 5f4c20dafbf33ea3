"""The attack alone: by hand, and beside a maintained library's."""

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

import san
from eval import pgd

# Two pixels of one channel to two classes: the first pixel speaks for class 0,
# the second for class 1, and class 1 is favoured.
WEIGHT = torch.tensor([[4.0, 0.0], [0.0, 4.0]])


def two_pixels(images):
    return images.flatten(1) @ WEIGHT.T + torch.tensor([0.0, 1.0])


def pixels(*values):
    return torch.tensor(values).view(1, 1, 1, -1)


def test_steps_by_hand():
    image, target = pixels(0.5, 0.5), torch.tensor([0])
    options = {"epsilon": 0.3, "step": 0.2}
    one = pgd.pgd(two_pixels, image, target, iterations=1, **options)
    assert one.tolist() == pixels(0.7, 0.3).tolist()
    # The border of the ball is 0.3 away.
    two = pgd.pgd(two_pixels, image, target, iterations=2, **options)
    torch.testing.assert_close(two, pixels(0.8, 0.2))
    many = pgd.pgd(two_pixels, image, target, iterations=9, **options)
    assert many.tolist() == two.tolist()


def test_pixels_stay_pixels():
    image, target = pixels(0.9, 0.1), torch.tensor([0])
    found = pgd.pgd(
        two_pixels, image, target, epsilon=0.5, step=0.2, iterations=3
    )
    assert found.tolist() == pixels(1.0, 0.0).tolist()


def test_no_step_and_another_start():
    image, target = pixels(0.5, 0.5), torch.tensor([0])
    options = {"epsilon": 0.3, "step": 0.2}
    none = pgd.pgd(two_pixels, image, target, iterations=0, **options)
    assert none.tolist() == image.tolist()
    start = pixels(0.4, 0.7)
    moved = pgd.pgd(
        two_pixels, image, target, iterations=1, start=start, **options
    )
    torch.testing.assert_close(moved, pixels(0.6, 0.5))


def test_losses_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    targets = torch.tensor([0, 1])
    assert pgd.margin(logits, targets).tolist() == [-1.0, 2.0]
    expected = -logits.log_softmax(1)[[0, 1], targets]
    torch.testing.assert_close(pgd.cross_entropy(logits, targets), expected)


class Pixels(nn.Module):
    """A network that normalises pixels, as the command's does."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network((images - 0.45) / 0.22)


def small_san(attention):
    torch.manual_seed(0)
    network = san.SAN(
        attention=attention,
        num_blocks=(1, 1),
        kernel_sizes=(3, 5),
        widths=(32, 32),
        num_classes=4,
    )
    return Pixels(network).eval().requires_grad_(False)


def art_pgd(network, images, targets, epsilon, step, iterations):
    """The same attack by the Adversarial Robustness Toolbox."""
    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        nb_classes=4,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=np.inf,
        eps=epsilon,
        eps_step=step,
        max_iter=iterations,
        targeted=True,
        num_random_init=0,
        verbose=False,
    )
    return attack.generate(images.numpy(), y=np.eye(4)[targets.numpy()])


@pytest.mark.parametrize("backend", ["fused", "unfused"])
@pytest.mark.parametrize(
    "attention", [san.PairwiseAttention, san.PatchwiseAttention]
)
@pytest.mark.parametrize(("step", "iterations"), [(4, 2), (2, 4)])
def test_equals_a_maintained_library(attention, backend, step, iterations):
    network = small_san(attention)
    images = torch.rand(5, 3, 12, 12)
    targets = torch.tensor([0, 1, 2, 3, 0])
    with san.use_attention_backend(backend):
        ours = pgd.pgd(
            network,
            images,
            targets,
            epsilon=8 / 255,
            step=step / 255,
            iterations=iterations,
        )
        theirs = art_pgd(
            network, images, targets, 8 / 255, step / 255, iterations
        )
    moved = (ours - images).abs() * 255
    assert moved.max() <= 8.001
    assert moved.mean() > 4
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-6)


def test_parameters_get_no_gradient():
    network = small_san(san.PairwiseAttention).requires_grad_(True)
    images, targets = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    found = pgd.pgd(
        network, images, targets, epsilon=0.1, step=0.1, iterations=2
    )
    assert not found.requires_grad
    assert all(p.grad is None for p in network.parameters())


def test_an_image_does_not_depend_on_its_batch():
    network = small_san(san.PairwiseAttention).double()
    images = torch.rand(4, 3, 12, 12, dtype=torch.float64)
    targets = torch.tensor([3, 1, 2, 0])
    options = {"epsilon": 0.05, "step": 0.01, "iterations": 3}
    together = pgd.pgd(network, images, targets, **options)
    for place in range(4):
        part = slice(place, place + 1)
        alone = pgd.pgd(network, images[part], targets[part], **options)
        torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-12)
