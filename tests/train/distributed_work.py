"""What distributed_test.py runs in one process and in three.

Trains a patchwise SAN in float64 for a few steps on slices of unequal size
(7 images), tries the collectives, prints what it saw and saves the weights.
"""

import json
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

import san
from san import distributed
from san.recipe import Recipe
from train import optimization

NUM_IMAGES = 7
NUM_STEPS = 4


def main():
    """Runs everything."""
    torch.set_num_threads(1)
    with distributed.process_group() as process:
        model = train(process)
        print(json.dumps(collectives(process)))
        if process.is_first:
            torch.save(model.state_dict(), sys.argv[1])


def train(process):
    """Trains on this process's slice of the same images."""
    torch.manual_seed(0)
    images = torch.randn(NUM_IMAGES, 3, 8, 8, dtype=torch.double)
    labels = torch.randint(5, (NUM_IMAGES,))
    model = san.SAN(
        san.PatchwiseAttention, (1, 1), (3, 3), (32, 64), num_classes=5
    ).double()
    network = model
    if process.world_size > 1:
        distributed.synchronize_batch_norm(model)
        network = DistributedDataParallel(model, forward_sync_buffers=False)
    optimizer = optimization.create_optimizer(model, Recipe())
    mine = slice(
        NUM_IMAGES * process.rank // process.world_size,
        NUM_IMAGES * (process.rank + 1) // process.world_size,
    )
    part = len(images[mine]) * process.world_size / NUM_IMAGES
    for _ in range(NUM_STEPS):
        loss = optimization.smoothed_cross_entropy(
            network(images[mine]), labels[mine], 0.1
        )
        optimizer.zero_grad()
        (loss * part).backward()
        optimizer.step()
    return model


def collectives(process):
    """What this process gets from each collective operation."""
    called = []
    seen = {
        "sum": int(
            distributed.sum_over_processes(torch.tensor(process.rank + 1))
        ),
        "any": [
            distributed.any_process(process.rank == process.world_size - 1),
            distributed.any_process(False),
        ],
        "first": distributed.on_first_process(
            lambda: called.append(process.rank) or called
        ),
    }
    try:
        distributed.on_first_process(lambda: fail(process.rank))
    except ValueError as error:
        seen["error"] = str(error)
    return seen


def fail(rank):
    """A user's mistake that only one process finds."""
    raise ValueError(f"found by {rank}")


if __name__ == "__main__":
    main()
