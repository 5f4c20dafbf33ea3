"""A network whose predictions can be told by looking at an image.

Each class has a colour of its own, up to a thousand of them, and the class of
an image is the one whose colour is nearest to the mean of its pixels.
"""

import json

import gin
import torch
from PIL import Image
from torch import nn

from san.jobs import config

SETTINGS = """
import tests.eval.nearest_colour
create_model.name = @NearestColour
Data.image_size = 12
Data.resize_size = 14
Data.mean = (0.0, 0.0, 0.0)
Data.std = (1.0, 1.0, 1.0)
Data.num_threads = 1
Recipe.batch_size = 64
"""


@gin.configurable(module="tests")
class NearestColour(nn.Module):
    """Logits [N, K] rise with the nearness of a class's colour."""

    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.fc(images.mean((2, 3)))


def colour(output):
    """The colour of an output, far from those of all others."""
    return tuple(15 + 25 * (output // step % 10) for step in (1, 10, 100))


def synsets(count):
    """Names like ImageNet's, in its order."""
    return [f"n{10_000_000 + 7 * number:08}" for number in range(count)]


def configure(folder, *params):
    """Configures this process; the gin file that does it."""
    path = folder / "nearest.gin"
    path.write_text(SETTINGS)
    config.parse([str(path)], params)
    return path


def checkpoint(path, num_classes, **beside):
    """Writes a checkpoint, such as published ones, with other entries."""
    colours = torch.tensor([colour(output) for output in range(num_classes)])
    colours = colours / 255
    # The same as -|x - colour|^2, up to what all classes have in common.
    weights = {
        "fc.weight": 2000 * colours,
        "fc.bias": -1000 * colours.square().sum(1),
    }
    torch.save({"state_dict": weights} | beside, path)
    return path


def write(root, images, side=16):
    """Writes images: the class whose colour each has, by path."""
    for path, output in images.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), colour(output)).save(file, quality=95)
    return root


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path
