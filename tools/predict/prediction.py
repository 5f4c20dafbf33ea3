"""What a network says of images: classes with probabilities."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eval.loading import Network
from san.data import Data
from san.jobs import valid_json
from san.jobs.precision import autocast
from tools.predict import images
from tools.predict.images import Image, Unreadable


class Guess(NamedTuple):
    """A class, its number among the outputs, and how likely it is."""

    name: str
    label: int
    probability: float

    def as_text(self) -> str:
        """For people."""
        return f"{self.name} {100 * self.probability:.1f}%"


class Prediction(NamedTuple):
    """The most likely classes of an image, the likeliest first."""

    path: str
    guesses: list[Guess]

    def as_text(self) -> str:
        """A line for people."""
        classes = ", ".join(guess.as_text() for guess in self.guesses)
        return f"{self.path}: {classes}"

    def as_json(self) -> dict[str, Any]:
        """An entry of a JSON list."""
        return {
            "path": self.path,
            "classes": [guess._asdict() for guess in self.guesses],
        }


def predict(
    network: Network,
    found: Sequence[Image],
    data: Data,
    *,
    precision: str,
    batch_size: int,
    top: int,
    device: torch.device,
) -> Iterator[Prediction | Unreadable]:
    """Predicts images, in their order.

    Args:
      network: as it was read.
      found: the images.
      data: sizes and normalisation.
      precision: of Recipe.
      batch_size: images at a time.
      top: how many classes of each, at most.
      device: where to compute.

    Yields:
      What the network says; or that an image cannot be decoded.

    Raises:
      FloatingPointError: if it says what is no number.
    """
    model = network.model.to(device).eval()
    for batch, pixels in images.batches(found, data, batch_size, device):
        if pixels is None:
            (image,) = batch
            yield Unreadable(image.path, "cannot be decoded: it is damaged")
            continue
        paths = [image.path for image in batch]
        probabilities = probabilities_of(model, pixels, precision, paths)
        guesses = likeliest(network, probabilities, top)
        for image, best in zip(batch, guesses, strict=True):
            yield Prediction(image.path, best)


def probabilities_of(
    model: nn.Module, pixels: Tensor, precision: str, paths: Sequence[str]
) -> Tensor:
    """Probabilities of the classes, float32 [N, num_classes].

    Args:
      model: in evaluation mode.
      pixels: [N, 3, H, W] on its device.
      precision: of Recipe.
      paths: of the images.

    Raises:
      FloatingPointError: if there is one that is no number.
    """
    with torch.inference_mode(), autocast(pixels.device, precision):
        probabilities = model(pixels).float().softmax(dim=1)
    bad = ~probabilities.isfinite().all(dim=1)
    if bad.any():
        raise FloatingPointError(
            "predict: the network's logits must be finite, got others for"
            f" {paths[int(bad.int().argmax())]}; Recipe.precision ="
            " 'float32' has the largest range"
        )
    return probabilities


def likeliest(
    network: Network, probabilities: Tensor, top: int
) -> list[list[Guess]]:
    """The most likely classes of each image, the likeliest first.

    Args:
      network: which knows what its classes are called.
      probabilities: [N, num_classes].
      top: how many, at most.
    """
    names = network.classes or [*map(str, range(network.num_classes))]
    best = probabilities.topk(min(top, len(names)), dim=1)
    return [
        [
            Guess(names[label], label, value)
            for label, value in zip(labels, values, strict=True)
        ]
        for labels, values in zip(
            best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def as_json(
    network: Network,
    predictions: Sequence[Prediction],
    unreadable: Sequence[Unreadable],
) -> str:
    """All of it, for programs.

    Args:
      network: that was asked.
      predictions: what it said.
      unreadable: images that it was not asked about.
    """
    return valid_json.text_of(
        {
            "network": network.name,
            "num_classes": network.num_classes,
            "images": [prediction.as_json() for prediction in predictions],
            "unreadable": [one._asdict() for one in unreadable],
        }
    )
