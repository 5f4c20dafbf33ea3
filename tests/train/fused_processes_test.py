"""What is fused computes in two processes what it does in one.

Run as a module, as distributed_work is, this is what each process does.
"""

import functools
import sys

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import san
from san.jobs import entry, processes
from san.networks.san import Bottleneck
from san.norms import synchronize_batch_norm
from san.ops import norm_relu
from tests.train import jobs


class Pooled(nn.Module):
    """Norm, ReLU and pooling; of a single row or column without pooling."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(64)

    def forward(self, x):
        return norm_relu(x, self.norm, 2 if min(x.shape[2:]) > 1 else 1)


# Images of each process.
SHARES = (1, 4)
BLOCKS = {
    "pairwise": functools.partial(san.PairwiseAttention, 64, 5),
    "patchwise": functools.partial(san.PatchwiseAttention, 64, 3),
    "bottleneck": functools.partial(Bottleneck, san.PairwiseAttention, 64, 3),
    "pooled": Pooled,
}
# Height and width; the second is smaller than any footprint, and a process
# with one image of the third has one value per channel.
IMAGES = {"small": (4, 7), "tiny": (2, 1), "pixel": (1, 1)}
CASES = [
    f"{block} {image} {wrapper}"
    for block in BLOCKS
    for image in IMAGES
    for wrapper in ("sums", "DistributedDataParallel")
]


def main():
    """Saves what this process sees of every case."""
    torch.set_num_threads(1)
    san.set_attention_backend("fused")
    with processes.process_group() as process:
        seen = {case: step(process, *case.split()) for case in CASES}
        torch.save(seen, f"{sys.argv[1]}.{process.rank}")


def step(process, block, image, wrapper):
    """Output, gradients and statistics of one step on the process's images."""
    torch.manual_seed(0)
    model = BLOCKS[block]().double()
    images = torch.randn(sum(SHARES), 64, *IMAGES[image], dtype=torch.double)
    network = model
    if process.world_size > 1:
        images = images.split(SHARES)[process.rank]
        synchronize_batch_norm(model)
        if wrapper == "DistributedDataParallel":
            network = DistributedDataParallel(model, forward_sync_buffers=False)
    images.requires_grad_()
    output = network(images)
    seeds = torch.randn(sum(SHARES), *output.shape[1:], dtype=torch.double)
    if process.world_size > 1:
        seeds = seeds.split(SHARES)[process.rank]
    output.backward(seeds)
    if network is model:
        for parameter in model.parameters():
            processes.sum_over_processes(parameter.grad)
            parameter.grad /= process.world_size
    return {
        "output": output.detach(),
        "images": images.grad,
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "statistics": dict(model.named_buffers()),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What one process alone, the first and the second of two saw."""
    folder = tmp_path_factory.mktemp("processes")
    module = "tests.train.fused_processes_test"
    results = [
        jobs.run(module, folder / "alone"),
        *jobs.run_processes(len(SHARES), module, folder / "together"),
    ]
    for code, _, stderr in results:
        assert code == 0, stderr
    return [
        torch.load(folder / name)
        for name in ("alone.0", "together.0", "together.1")
    ]


def assert_close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_does(seen, case):
    alone, *together = (process[case] for process in seen)
    for name in ("output", "images"):
        shares = [process[name] for process in together]
        assert tuple(map(len, shares)) == SHARES
        assert_close(torch.cat(shares), alone[name])
    for process in together:
        # The mean over processes of the gradients of each one's sum.
        gradients = {
            name: gradient * len(SHARES)
            for name, gradient in process["gradients"].items()
        }
        assert_close(gradients, alone["gradients"])
        assert_close(process["statistics"], alone["statistics"])


@pytest.mark.parametrize("case", CASES)
def test_no_process_drifts_away(seen, case):
    """Gradients and statistics are the same bits on both."""
    _, *together = (process[case] for process in seen)
    for kind in ("gradients", "statistics"):
        one, other = (process[kind] for process in together)
        jobs.assert_same_bits(one, other)


if __name__ == "__main__":
    main()
    entry.leave(0)
