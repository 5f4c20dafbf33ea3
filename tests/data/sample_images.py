"""Real image files for the tests, and what PIL makes of them."""

import os

import numpy as np
from PIL import Image


def picture(height, width, *, seed=0, mode="RGB"):
    """A smooth random picture: JPEG keeps it and resizing does not blank it."""
    small = np.random.default_rng(seed).integers(
        0, 256, (height // 6 + 2, width // 6 + 2, 3), np.uint8
    )
    large = Image.fromarray(small).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return large.convert(mode)


def write_images(root, sizes):
    """Writes root/split/class/0.jpg ... from {"split/class": [(h, w), ...]}."""
    seed = 0
    for folder, pictures in sizes.items():
        os.makedirs(root / folder)
        for number, (height, width) in enumerate(pictures):
            seed += 1
            picture(height, width, seed=seed).save(
                root / folder / f"{number}.jpg", quality=95
            )
    return str(root)


def pil_pixels(image, size):
    """Bilinear resize by PIL: float [height, width, 3]."""
    resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def grey_levels(images, data):
    """Undoes the normalisation: float64 [n, height, width, 3] in 0..255."""
    pixels = images.permute(0, 2, 3, 1).double().numpy()
    return 255 * (pixels * np.array(data.std) + np.array(data.mean))
