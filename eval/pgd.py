"""Projected gradient descent: the images near given ones that fool a network.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018, in the targeted form. Who is attacked, with which targets
and settings, is in attacks.py.

Shape letters: N images of 3 channels and H x W pixels, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# From logits [N, K] and targets [N] to what the attack lowers, [N].
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target], for each image."""
    return F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """The best other logit less the target's: below 0 if the target wins."""
    target = targets[:, None]
    others = logits.scatter(1, target, -torch.inf)
    return others.amax(1) - logits.gather(1, target).squeeze(1)


def pgd(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    epsilon: float,
    step: float,
    iterations: int,
    loss: Loss = cross_entropy,
    start: Tensor | None = None,
) -> Tensor:
    """Each step: x <- clip(x - step * sign(d loss / d x)).

    Clipped to the ball of radius epsilon around the image, each value by
    itself, and to [0, 1].

    Args:
      network: maps pixels in [0, 1], [N, 3, H, W], to logits [N, K].
      images: the pixels that are attacked.
      targets: the classes that the network shall see, [N].
      epsilon: the most that a value may change.
      step: how much it changes in an iteration.
      iterations: number of steps.
      loss: what the attack lowers.
      start: where it starts, inside the ball; None for the images.

    Returns:
      The last images of the attack, [N, 3, H, W].
    """
    low = (images - epsilon).clamp(min=0)
    high = (images + epsilon).clamp(max=1)
    attacked = images if start is None else start
    for _ in range(iterations):
        attacked = attacked.detach().requires_grad_()
        # The sum: no image's gradient depends on what it shares a batch with.
        total = loss(network(attacked), targets).sum()
        (gradient,) = torch.autograd.grad(total, attacked)
        attacked = attacked.detach() - step * gradient.sign()
        attacked = attacked.clamp(low, high)
    return attacked
