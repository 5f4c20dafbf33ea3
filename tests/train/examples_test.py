"""The picture of what the network sees."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from san import data
from tests.train import jobs
from train import examples, trainer
from train.interruption import InterruptionError

SETTINGS = data.Data(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CLASSES = ["cat", "dog", "a house"]


def test_captions_say_both_classes_of_a_mixed_image():
    labels = torch.tensor([0, 1, 2, 2, 1])
    assert examples.captions(labels, 1.0, CLASSES) == [
        *("cat", "dog", "a house", "a house", "dog")
    ]
    assert examples.captions(labels, 0.7, CLASSES) == [
        *("70% cat, 30% dog", "70% dog, 30% cat"),
        *("a house", "a house"),
        "dog",  # The odd one is its own partner.
    ]


@pytest.mark.parametrize("name", ["\udcff", "猫", "n" * 500, ""])
def test_folders_of_any_name_are_drawn(name):
    (text,) = examples.captions(torch.tensor([0]), 1.0, [name])
    picture = examples.draw(torch.zeros(1, 3, 5, 5), [text], SETTINGS)
    assert picture[:160, :160].max() == 128
    text.encode()


@pytest.mark.parametrize("side", [7, 160, 301])
@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (7, 4, 2)])
def test_colours_and_places_are_those_of_the_images(side, count, columns, rows):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (count, 3), np.uint8)
    images = torch.from_numpy(colours / 255).float()[..., None, None]
    mean = torch.tensor(SETTINGS.mean).view(3, 1, 1)
    std = torch.tensor(SETTINGS.std).view(3, 1, 1)
    normalised = ((images - mean) / std).expand(count, 3, side, side)
    picture = examples.draw(normalised, ["cat"] * count, SETTINGS)
    height, width, _ = picture.shape
    assert picture.dtype == np.uint8
    assert width // columns - 4 == min(max(side, 160), 256)
    for number in range(count):
        row, column = divmod(number, columns)
        tile = picture[row * (height // rows) :, column * (width // columns) :]
        assert (tile[:160, :160] == colours[number]).all()
        caption = tile[height // rows - 18 : height // rows, :160]
        assert caption.any()
    assert not picture[-160:, -160:].any() or count == 1  # No eighth image.


def test_what_is_brighter_than_white_is_white():
    pixels = torch.tensor([-9.0, 9.0]).repeat(1, 3, 2, 1)
    picture = examples.draw(pixels, ["cat"], SETTINGS)
    assert picture[0, 0].tolist() == [0] * 3
    assert picture[0, 159].tolist() == [255] * 3


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def test_each_start_shows_its_first_batch(tmp_path, images, monkeypatch):
    """As the network gets it, once; the second start is at another place."""
    seen = []

    def watch(network, inputs):
        if network.training:
            seen.append(inputs[0])

    take = trainer.Trainer._prepare_network

    def prepare(self):
        take(self)
        self._network.register_forward_pre_hook(watch)

    monkeypatch.setattr(trainer.Trainer, "_prepare_network", prepare)
    settings = ["Recipe.mixup_alpha = 0.8"]
    jobs.configure(tmp_path, *settings)
    with jobs.interruption(2), pytest.raises(InterruptionError):
        jobs.train(tmp_path / "run", images)
    first = (tmp_path / "run" / "examples.png").read_bytes()
    assert_shows(first, seen[0])
    folder = jobs.train(tmp_path / "run", images)
    assert len(seen) == 8
    assert_shows(folder.examples.read_bytes(), seen[2])
    events = event_accumulator.EventAccumulator(str(folder.tensorboard))
    shown = events.Reload().Images("examples")
    assert [image.step for image in shown] == [1, 3]
    assert_shows(shown[0].encoded_image_string, seen[0])
    words = events.Tensors("examples/text_summary")[0].tensor_proto.string_val
    assert words[0].count(b";") == 5 and b"% " in words[0]


def assert_shows(png, inputs):
    """A picture has the pixels of a batch of images."""
    found = np.asarray(Image.open(io.BytesIO(png)))
    settings = data.Data()
    drawn = examples.draw(inputs, ["" for _ in inputs], settings)
    assert found.shape == drawn.shape
    rows = found.shape[0] // 2
    for row in range(2):
        part = slice(row * rows, row * rows + 160)
        assert (found[part] == drawn[part]).all()
