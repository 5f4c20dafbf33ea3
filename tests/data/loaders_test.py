import os

import pytest
import torch

from san.data import (
    Data,
    DataError,
    TrainingLoader,
    ValidationLoader,
    load_split,
)
from tests.data.sample_images import grey_levels, write_images

DATA = Data(image_size=16, resize_size=18, num_threads=2)
NUM_TRAINING, NUM_VALIDATION = 23, 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(
        tmp_path_factory.mktemp("loaders"),
        {
            "train/cat": [(20, 30)] * 9,
            "train/dog": [(31, 19)] * 14,
            "val/cat": [(20, 20)] * 5,
            "val/dog": [(25, 40)] * 6,
        },
    )


def training(folder, data=DATA, **options):
    options = {"batch_size": 5, "seed": 0, "device": "cpu"} | options
    return TrainingLoader(load_split(folder, "train"), data, **options)


def validation(folder, **options):
    options = {"batch_size": 4, "device": "cpu"} | options
    return ValidationLoader(load_split(folder, "val"), DATA, **options)


def images_of(batches):
    return [images for images, _ in batches]


def whole(batches):
    """All images and labels of an iterator of batches."""
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def which(folder, split, images):
    """The number of each image in its split, told by its pixels.

    Only for data that neither crops nor flips.
    """
    index = load_split(folder, split)
    loader = ValidationLoader(index, DATA, batch_size=len(index), device="cpu")
    ((originals, _),) = loader
    distances = (images[:, None] - originals[None]).abs().amax(dim=(2, 3, 4))
    assert (distances.amin(dim=1) == 0).all()
    return distances.argmin(dim=1).tolist()


def test_training_batches(folder):
    loader = training(folder)
    assert loader.steps_per_epoch == 4
    batches = list(loader.epoch(0))
    assert len(batches) == 4
    for images, labels in batches:
        assert images.shape == (5, 3, 16, 16)
        assert images.dtype == torch.float32
        assert labels.shape == (5,) and labels.dtype == torch.int64
    levels = grey_levels(whole(batches)[0], DATA)
    assert levels.min() > -0.01 and levels.max() < 255.01


def test_an_epoch_takes_each_image_once_with_its_label(folder):
    # One image per batch, so that no image is left over.
    loader = training(folder, batch_size=1)
    labels = whole(loader.epoch(0))[1]
    assert torch.bincount(labels).tolist() == [9, 14]
    # The same labels in another order in the next epoch.
    later = whole(loader.epoch(1))[1]
    assert torch.bincount(later).tolist() == [9, 14]
    assert labels.tolist() != later.tolist()
    assert labels.tolist() != sorted(labels.tolist())


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_same_global_batches(folder, world_size):
    expected = list(training(folder).epoch(2))
    parts = [
        list(training(folder, rank=rank, world_size=world_size).epoch(2))
        for rank in range(world_size)
    ]
    for step, (images, labels) in enumerate(expected):
        shares = [part[step] for part in parts]
        assert torch.equal(torch.cat([share[0] for share in shares]), images)
        assert torch.equal(torch.cat([share[1] for share in shares]), labels)
        sizes = [len(share[1]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_an_epoch_goes_on_from_its_middle(folder):
    expected = list(training(folder).epoch(3))
    for first_step in range(5):
        rest = list(training(folder).epoch(3, first_step))
        assert len(rest) == 4 - first_step
        for found, batch in zip(rest, expected[first_step:], strict=True):
            assert torch.equal(found[0], batch[0])
            assert torch.equal(found[1], batch[1])


def test_the_seed_and_the_epoch_decide_everything(folder):
    first = whole(training(folder).epoch(0))
    again = training(folder, data=DATA)
    list(again.epoch(5))
    repeated = whole(again.epoch(0))
    assert torch.equal(first[0], repeated[0])
    assert torch.equal(first[1], repeated[1])
    assert not torch.equal(first[0], whole(again.epoch(1))[0])
    assert not torch.equal(
        first[0], whole(training(folder, seed=1).epoch(0))[0]
    )


def test_crops_change_from_epoch_to_epoch(folder):
    loader = training(folder, batch_size=1)
    epochs = [
        sorted(images.sum().item() for images in images_of(loader.epoch(e)))
        for e in (0, 1)
    ]
    assert not set(epochs[0]) & set(epochs[1])


@pytest.mark.parametrize("world_size", [1, 2, 3, 12])
def test_each_validation_image_counts_once(folder, world_size):
    seen = []
    for rank in range(world_size):
        loader = validation(folder, rank=rank, world_size=world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        for (images, labels), said in zip(batches, loader.numbers, strict=True):
            numbers = which(folder, "val", images)
            assert numbers == said.tolist()
            assert [int(number >= 5) for number in numbers] == labels.tolist()
            seen += numbers
    assert sorted(seen) == list(range(NUM_VALIDATION))


def test_validation_repeats_itself(folder):
    loader = validation(folder)
    first, second = whole(loader), whole(loader)
    next(iter(loader))
    third = whole(loader)
    assert [len(images) for images in images_of(loader)] == [4, 4, 3]
    for other in (second, third):
        assert torch.equal(first[0], other[0])
        assert torch.equal(first[1], other[1])


def resident_megabytes():
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_fifty_epochs_need_no_more_memory_than_one(folder):
    data = Data(image_size=128, resize_size=128, num_threads=2)
    loader = training(folder, data=data)
    for epoch in range(50):
        for batch in loader.epoch(epoch):
            del batch
        if epoch == 4:
            before = resident_megabytes()
            threads = len(os.listdir("/proc/self/task"))
    # Batches that stayed would take 3.75 MiB an epoch.
    assert resident_megabytes() - before < 40
    assert len(os.listdir("/proc/self/task")) <= threads


def test_too_few_images_for_a_batch(folder):
    with pytest.raises(DataError) as error:
        training(folder, batch_size=24)
    assert str(error.value) == (
        "TrainingLoader: batch_size must be at most 23, the number of images"
        f" in {folder}/train, got 24"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank must lie in 0..1, got 2"),
        ({"rank": -1}, "rank must lie in 0..0, got -1"),
        ({"world_size": 6}, "at least the number of processes (6), got 5"),
        ({"batch_size": 0}, "at least the number of processes (1), got 0"),
    ],
)
def test_training_loader_arguments(folder, options, message):
    with pytest.raises(ValueError) as error:
        training(folder, **options)
    assert message in str(error.value)


def test_other_arguments(folder):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        validation(folder, batch_size=0)
    with pytest.raises(ValueError, match=r"first_step must lie in 0..4, got 5"):
        training(folder).epoch(0, first_step=5)
