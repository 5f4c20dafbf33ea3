import math

import pytest
import torch
from torch.nn import functional as F

from san.recipe import Recipe
from train import losses
from train.mixing import Mixing


def published_loss(logits, labels, smoothing):
    """The published form, written out."""
    return (
        -(target(logits, labels, smoothing) * logits.log_softmax(1))
        .sum(1)
        .mean()
    )


def target(logits, labels, smoothing):
    """The published targets."""
    num_classes = logits.shape[1]
    targets = torch.full_like(logits, smoothing / (num_classes - 1))
    return targets.scatter_(1, labels[:, None], 1 - smoothing)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_the_published_form(num_classes, smoothing):
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(
        7, num_classes, dtype=torch.double, generator=generator
    )
    labels = torch.randint(num_classes, (7,), generator=generator)
    found = losses.smoothed_cross_entropy(logits, labels, smoothing)
    expected = published_loss(logits, labels, smoothing)
    torch.testing.assert_close(found, expected)
    found = losses.binary_cross_entropy(logits, labels, smoothing)
    targets = target(logits, labels, smoothing)
    expected = F.binary_cross_entropy(logits.sigmoid(), targets)
    torch.testing.assert_close(found, expected)


def test_label_smoothing_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    labels = torch.tensor([0])
    found = losses.smoothed_cross_entropy(logits, labels, 0.1)
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert found.item() == pytest.approx(expected)
    found = losses.binary_cross_entropy(logits, labels, 0.1)
    first = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    other = -0.1 * math.log(0.5) - 0.9 * math.log(0.5)
    assert found.item() == pytest.approx((first + other) / 2)


@pytest.mark.parametrize(("smoothing", "num_classes"), [(0.5, 2), (0.1, 1)])
def test_smoothing_must_leave_the_label_likeliest(smoothing, num_classes):
    with pytest.raises(ValueError, match=r"label_smoothing must be below"):
        losses.check_smoothing(smoothing, num_classes)


def test_one_class_without_smoothing_has_a_loss():
    logits, labels = torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)
    assert losses.smoothed_cross_entropy(logits, labels, 0.0) == 0
    found = losses.binary_cross_entropy(logits, labels, 0.0)
    assert found.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_mixed_loss_is_that_of_mixed_targets(loss):
    logits = torch.randn(6, 5, dtype=torch.double)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    recipe = Recipe(loss=loss, label_smoothing=0.1)
    found = losses.mixed_loss(logits, labels, recipe, Mixing(0.3))
    partners = labels[[1, 0, 3, 2, 5, 4]]
    targets = 0.3 * target(logits, labels, 0.1)
    targets += 0.7 * target(logits, partners, 0.1)
    if loss == "cross_entropy":
        expected = F.cross_entropy(logits, targets)
    else:
        expected = F.binary_cross_entropy(logits.sigmoid(), targets)
    torch.testing.assert_close(found, expected)
