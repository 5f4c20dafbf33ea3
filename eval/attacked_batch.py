"""A batch of images with the targets and the noise of their attacks.

Shape letters: N images of 3 channels and H x W pixels, K classes.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from eval import pgd

_LOSSES = {"cross-entropy": pgd.cross_entropy, "margin": pgd.margin}


@dataclasses.dataclass(frozen=True)
class Attack:
    """A setting of the attack.

    Attributes:
      epsilon: the most that a value of an image changes, of 255.
      step: what it changes by in an iteration, of 255.
      iterations: number of steps.
      starts: number of starts: from the image, then from noise.
      loss: "cross-entropy" or "margin".
    """

    epsilon: float
    step: float
    iterations: int
    starts: int = 1
    loss: str = "cross-entropy"


class PixelNetwork(nn.Module):
    """A network that normalises its images itself.

    Args:
      network: takes normalised images.
      mean: of each colour, where white is 1.
      std: of each colour, where white is 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels in [0, 1], [N, 3, H, W], to logits [N, K]."""
        return self.network((pixels - self.mean) / self.std)

    def pixels(self, images: Tensor) -> Tensor:
        """Undoes the normalisation."""
        return (images * self.std + self.mean).clamp(0, 1)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that are attacked.

    Attributes:
      pixels: in [0, 1], [N, 3, H, W].
      labels: the true classes, [N].
      numbers: of the images in the validation set, [N].
      num_classes: K.
      seed: what targets and noise are drawn from, image by image.
    """

    pixels: Tensor
    labels: Tensor
    numbers: np.ndarray
    num_classes: int
    seed: int

    def targets(self) -> Tensor:
        """A wrong class for each image, [N]: all are equally likely."""
        drawn = torch.tensor(
            [
                int(self._generator(number, 0).integers(self.num_classes - 1))
                for number in self.numbers
            ]
        ).to(self.labels.device)
        return drawn + (drawn >= self.labels)

    def unattacked(self, network: nn.Module) -> Tensor:
        """How many images are taken for the target, how many are right: [2]."""
        predicted = network(self.pixels).argmax(1)
        fooled, right = predicted == self.targets(), predicted == self.labels
        return torch.stack([fooled.sum(), right.sum()]).cpu()

    def attacked(self, network: nn.Module, attack: Attack) -> Tensor:
        """The same under an attack: fooled by any start, right after all."""
        targets = self.targets()
        fooled = torch.zeros_like(targets, dtype=torch.bool)
        right = ~fooled
        for start in range(attack.starts):
            # Of an image that was fooled there is no more to know.
            left = (~fooled).nonzero().squeeze(1)
            if not len(left):
                break
            attacked = pgd.pgd(
                network,
                self.pixels[left],
                targets[left],
                epsilon=attack.epsilon / 255,
                step=attack.step / 255,
                iterations=attack.iterations,
                loss=_LOSSES[attack.loss],
                start=self._start(left, start, attack.epsilon / 255),
            )
            predicted = network(attacked).argmax(1)
            fooled[left] = predicted == targets[left]
            right[left] &= predicted == self.labels[left]
        return torch.stack([fooled.sum(), right.sum()]).cpu()

    def _start(self, images: Tensor, start: int, epsilon: float) -> Tensor:
        """Where an attack on some of the images starts, [n, 3, H, W]."""
        pixels = self.pixels[images]
        if start == 0:
            return pixels
        noise = np.stack(
            [
                self._generator(self.numbers[place], start).uniform(
                    -epsilon, epsilon, pixels.shape[1:]
                )
                for place in images.tolist()
            ]
        )
        return (pixels + torch.from_numpy(noise).to(pixels)).clamp(0, 1)

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        """Stream 0 is the target's, stream n the noise of start n."""
        return np.random.default_rng([self.seed, int(number), stream])
