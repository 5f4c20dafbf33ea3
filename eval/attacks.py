"""Table 10: how often a targeted attack makes a network see what it wants.

What becomes of a batch is in attacked_batch.py, the attack itself in pgd.py.
"""

import dataclasses
from collections.abc import Sequence

import torch
import tqdm

from eval.attacked_batch import Attack, Batch, PixelNetwork
from eval.loading import Trained
from san.jobs import processes

PROTOCOL = """\
Targeted L-infinity PGD on validation images after resize and centre crop, in
pixel space: values in [0, 1], the normalisation is part of the network, float32,
no rounding to grey levels. Epsilon and step are on the scale 0 to 255. The
target of an image is drawn uniformly from its wrong classes by a generator of
its own (seed, number of the image). Start: the image itself, without noise;
after a restart noise, uniform in the epsilon-ball. Loss: cross-entropy to the
target, or the margin between the best other logit and the target's. Step:
x <- clip(x - step / 255 * sign(gradient)) to the epsilon-ball and to [0, 1].
Success: the network predicts the target after the last step, of one start at
least; top-1: it predicts the true class after the last step, of every start.
Both over all images. The paper does not publish its choice of target, loss and
start."""

# Of table 10. Its steps reach exactly the border of the ball.
PUBLISHED = (Attack(8, 4, 2), Attack(8, 2, 4))

# Two to four steps are few: a network that resists them need not be robust.
STRONG = Attack(8, 1, 50, starts=5, loss="margin")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an attack achieved.

    Attributes:
      attack: the setting, or None for images as they are.
      success: images that the network takes for the target, in percent.
      top1: images that it still gets right, in percent.
    """

    attack: Attack | None
    success: float
    top1: float


def measure(
    trained: Trained,
    attacks: Sequence[Attack],
    batch_size: int | None,
    seed: int,
) -> list[Outcome]:
    """Attacks a network on its images.

    The same seed and batch size give the same bits on the same machine; the
    targets and the noise are the same for any batch size and any number of
    processes.

    Args:
      trained: the network and the images; its parameters need no gradient
        afterwards, and it is in eval mode.
      attacks: what to do to each image.
      batch_size: images at a time over all processes; None for the recipe's.
      seed: what targets and noise are drawn from.

    Returns:
      The outcome without any attack, then that of each attack.

    Raises:
      ValueError: if there is no wrong class.
    """
    if trained.num_classes < 2:
        raise ValueError(
            "attack: the network must have at least 2 classes, for there to be"
            f" a wrong one, got {trained.num_classes}"
        )
    settings, device = trained.settings, trained.process.device
    network = PixelNetwork(trained.model, settings.mean, settings.std)
    network.to(device).eval().requires_grad_(False)
    loader = trained.batches(batch_size)
    sums = torch.zeros(1 + len(attacks), 2, dtype=torch.float64)
    bar = tqdm.tqdm(
        zip(loader, loader.numbers, strict=True),
        total=len(loader),
        desc="attack",
        unit="batch",
        disable=None if trained.process.is_first else True,
    )
    for (images, labels), places in bar:
        batch = Batch(
            network.pixels(images),
            labels.to(device),
            trained.numbers[places],
            trained.num_classes,
            seed,
        )
        sums[0] += batch.unattacked(network)
        for row, attack in enumerate(attacks, 1):
            sums[row] += batch.attacked(network, attack)
    percent = 100 * processes.sum_over_processes(sums) / len(trained.index)
    return [
        Outcome(attack, *row)
        for attack, row in zip((None, *attacks), percent.tolist(), strict=True)
    ]
