"""Losses of a recipe, with its label smoothing and mixed labels."""

from torch import Tensor
from torch.nn import functional as F

from san.recipe import Recipe
from train.mixing import Mixing, partners


def mixed_loss(
    logits: Tensor, labels: Tensor, recipe: Recipe, mixing: Mixing
) -> Tensor:
    """The loss of mixed images: both labels', weighted as the images are.

    Both losses are linear in the target, so this is that of mixed targets.

    Args:
      logits: [N, K].
      labels: [N], integers in 0..K-1.
      recipe: says which loss, and its smoothing.
      mixing: what was done to the images.

    Returns:
      A scalar.

    Raises:
      ValueError: if the label would be less likely than the other classes.
    """
    loss = _LOSSES[recipe.loss]
    own = loss(logits, labels, recipe.label_smoothing)
    if mixing.weight == 1.0:
        return own
    others = labels[partners(len(labels), labels.device)]
    other = loss(logits, others, recipe.label_smoothing)
    return mixing.weight * own + (1 - mixing.weight) * other


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    """Mean cross-entropy against the published label smoothing.

    The target distribution is 1 - smoothing on the label and
    smoothing / (K - 1) on each of the K - 1 other classes. torch spreads its
    own smoothing over all K classes, so it is given smoothing * K / (K - 1).

    Args:
      logits: [N, K].
      labels: [N], integers in 0..K-1.
      smoothing: probability taken from the label.

    Returns:
      The mean over the N images, a scalar.

    Raises:
      ValueError: if the label would be less likely than the other classes.
    """
    num_classes = logits.shape[1]
    check_smoothing(smoothing, num_classes)
    if smoothing:
        smoothing *= num_classes / (num_classes - 1)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    """Mean over images and classes of each class's binary cross-entropy.

    Source: "ResNet strikes back", 2021, section 3.1. The targets are those of
    smoothed_cross_entropy; arguments, result and error too.
    """
    num_classes = logits.shape[1]
    check_smoothing(smoothing, num_classes)
    rest = smoothing / (num_classes - 1) if smoothing else 0.0
    target = logits.new_full(logits.shape, rest)
    target.scatter_(1, labels[:, None], 1 - smoothing)
    return F.binary_cross_entropy_with_logits(logits, target)


def check_smoothing(smoothing: float, num_classes: int) -> None:
    """Raises ValueError if the label would not be the likeliest class."""
    limit = (num_classes - 1) / num_classes
    if smoothing and smoothing >= limit:
        raise ValueError(
            "Recipe: label_smoothing must be below (K - 1) / K ="
            f" {limit:g} with K = {num_classes} classes, got {smoothing}"
        )


_LOSSES = {
    "cross_entropy": smoothed_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}
