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


class Prediction(NamedTuple):
    """The most likely classes of an image, the likeliest first."""

    path: str
    guesses: list[Guess]

    def as_text(self) -> str:
        """A line for people."""
        classes = ", ".join(
            f"{guess.name} {100 * guess.probability:.1f}%"
            for guess in self.guesses
        )
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
    names = network.classes or [*map(str, range(network.num_classes))]
    for batch, pixels in images.batches(found, data, batch_size, device):
        if pixels is None:
            (image,) = batch
            yield Unreadable(image.path, "cannot be decoded: it is damaged")
            continue
        probabilities = _probabilities(model, pixels, precision)
        _check_finite(batch, probabilities)
        best = probabilities.topk(min(top, len(names)), dim=1)
        for image, values, labels in zip(
            batch, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            guesses = [
                Guess(names[label], label, value)
                for label, value in zip(labels, values, strict=True)
            ]
            yield Prediction(image.path, guesses)


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


def _check_finite(batch: Sequence[Image], probabilities: Tensor) -> None:
    bad = ~probabilities.isfinite().all(dim=1)
    if bad.any():
        raise FloatingPointError(
            "predict: the network's logits must be finite, got others for"
            f" {batch[int(bad.int().argmax())].path}; Recipe.precision ="
            " 'float32' has the largest range"
        )


def _probabilities(model: nn.Module, pixels: Tensor, precision: str) -> Tensor:
    with torch.inference_mode(), autocast(pixels.device, precision):
        return model(pixels).float().softmax(dim=1)
