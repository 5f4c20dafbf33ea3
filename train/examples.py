"""Examples of what the network sees: images after crop, flip and mixup."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from san import data
from train.mixing import partners as partners_of

_COLUMNS = 4

# Pixels of the picture: least and most of an image's side, a caption's height,
# its letters, and between two columns.
_SIDES = (160, 256)
_CAPTION, _LETTERS, _GAP = 18, 11, 4


def captions(
    labels: Tensor, weight: float, classes: Sequence[str]
) -> list[str]:
    """What each image is of, and with mixup its partner.

    Args:
      labels: [N], places in the list of classes.
      weight: of each image itself; its partner has the rest.
      classes: their names.

    Returns:
      Such as "cat", or "70% cat, 30% dog".
    """
    partners = labels[partners_of(len(labels), labels.device)]
    texts = []
    for pair in zip(labels.tolist(), partners.tolist(), strict=True):
        # Folders may have names that no text has.
        own, other = (
            classes[label].encode("utf-8", "backslashreplace").decode()
            for label in pair
        )
        mixed = weight < 1 and own != other
        texts.append(
            f"{weight:.0%} {own}, {1 - weight:.0%} {other}" if mixed else own
        )
    return texts


def draw(
    images: Tensor, texts: Sequence[str], settings: data.Data
) -> np.ndarray:
    """A grid of images with captions.

    Args:
      images: [N, 3, S, S], as the network gets them.
      texts: N captions.
      settings: whose mean and std they were normalised by.

    Returns:
      uint8 [height, width, 3].
    """
    tiles = [
        _tile(*pair)
        for pair in zip(_pixels(images, settings), texts, strict=True)
    ]
    columns = min(len(tiles), _COLUMNS)
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    grid = Image.new("RGB", (columns * width, rows * height))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        grid.paste(tile, (column * width, row * height))
    return np.asarray(grid)


def _tile(pixels: np.ndarray, text: str) -> Image.Image:
    """An image with its caption below, of which the end may be cut off."""
    side = min(max(len(pixels), _SIDES[0]), _SIDES[1])
    image = Image.fromarray(pixels)
    image = image.resize((side, side), Image.Resampling.NEAREST)
    tile = Image.new("RGB", (side + _GAP, side + _CAPTION))
    tile.paste(image)
    font = ImageFont.load_default(_LETTERS)
    ImageDraw.Draw(tile).text((2, side + 2), text, font=font)
    return tile


def _pixels(images: Tensor, settings: data.Data) -> np.ndarray:
    """The colours that were normalised: uint8 [N, S, S, 3]."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (settings.mean, settings.std)
    )
    colours = images.float().cpu() * std + mean
    whole = colours.clamp(0, 1).mul(255).round().to(torch.uint8)
    return whole.permute(0, 2, 3, 1).numpy()
