"""What distributed_test.py runs in one process and in three.

Trains a patchwise SAN in float64 for a few steps on slices of unequal size
(7 images) and saves the weights.
"""

import sys

import torch
from torch.nn.parallel import DistributedDataParallel

import san
from san.jobs import entry, processes
from san.norms import synchronize_batch_norm
from san.recipe import Recipe
from train import losses, optimization

NUM_IMAGES = 7
NUM_STEPS = 4


def main():
    """Runs everything."""
    torch.set_num_threads(1)
    with processes.process_group() as process:
        model = train(process)
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
        synchronize_batch_norm(model)
        network = DistributedDataParallel(model, forward_sync_buffers=False)
    optimizer = optimization.create_optimizer(model, Recipe())
    mine = slice(
        NUM_IMAGES * process.rank // process.world_size,
        NUM_IMAGES * (process.rank + 1) // process.world_size,
    )
    part = len(images[mine]) * process.world_size / NUM_IMAGES
    for _ in range(NUM_STEPS):
        loss = losses.smoothed_cross_entropy(
            network(images[mine]), labels[mine], 0.1
        )
        optimizer.zero_grad()
        (loss * part).backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    main()
    entry.leave(0)
