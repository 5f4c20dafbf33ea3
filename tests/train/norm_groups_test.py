"""Norms share statistics with the processes of their group, and no others.

Run as a module, this is what each of three processes does.
"""

import functools
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

import san
from san import ops
from san.jobs import processes
from san.networks.san import Bottleneck
from san.norms import SyncBatchNorm, group_of, synchronize_batch_norm
from tests.train import jobs


class Stem(nn.Module):
    """The stem alone; of 64 channels, as the others."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return ops.stem(x, self.conv, self.norm)


class Pooled(nn.Module):
    """Norm, ReLU and pooling."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(64, momentum=None, bias=False)

    def forward(self, x):
        return ops.norm_relu(x, self.norm, 2)


BLOCKS = {
    "pairwise": functools.partial(san.PairwiseAttention, 64, 5),
    "patchwise": functools.partial(san.PatchwiseAttention, 64, 3),
    "bottleneck": functools.partial(Bottleneck, san.PairwiseAttention, 64, 3),
    "stem": Stem,
    "pooled": Pooled,
    "layer": lambda: nn.Sequential(nn.BatchNorm2d(64)),
}
# Images of each process: the third is no member of the pair.
SHARES = {"pair": (1, 4, 2), "all": (2, 0, 3), "empty": (0, 0, 0)}
MEMBERS = {"pair": (0, 1), "all": (0, 1, 2), "empty": (0, 1, 2)}
# torch's own layer refuses the CPU where it is called.
CASES = [
    f"{block} {kind} {group}"
    for block in BLOCKS
    for kind in ("ours", "torchs", "converted")
    for group in SHARES
    if (block, kind) != ("layer", "torchs")
]


def main():
    """Saves what this process sees of every case."""
    torch.set_num_threads(1)
    with processes.process_group() as process:
        groups = {"pair": dist.new_group([0, 1]), "all": None, "empty": None}
        seen = {}
        for case in CASES:
            block, kind, group = case.split()
            images = shares(group)[process.rank]
            found = step(block, *images, kind, groups[group])
            if process.rank in MEMBERS[group]:
                for gradient in found["gradients"].values():
                    dist.all_reduce(gradient, group=groups[group])
            seen[case] = found
        torch.save(seen, f"{sys.argv[1]}.{process.rank}")


def shares(group):
    """Images, and seeds of their outputs' gradients, of each process."""
    generator = torch.Generator().manual_seed(1)
    images, seeds = (
        torch.randn(
            (sum(SHARES[group]), 64, 4, 7),
            generator=generator,
            dtype=torch.double,
        ).split(SHARES[group])
        for _ in range(2)
    )
    return list(zip(images, seeds, strict=True))


def synchronised(model, kind, group):
    if kind == "ours":
        return synchronize_batch_norm(model, group)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model, group)
    return synchronize_batch_norm(model) if kind == "converted" else model


def step(block, images, seeds, kind=None, group=None):
    """Output, gradients and statistics of one step on some images."""
    torch.manual_seed(0)
    model = BLOCKS[block]().double()
    if kind:
        model = synchronised(model, kind, group)
    images = images.clone().requires_grad_()
    output = model(images)
    (output * seeds[:, :1, :1, :1]).sum().backward()
    return {
        "output": output.detach(),
        "images": images.grad,
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "statistics": dict(model.named_buffers()),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each of three processes saw."""
    folder = tmp_path_factory.mktemp("processes")
    results = jobs.run_processes(
        3, "tests.train.norm_groups_test", folder / "seen"
    )
    for code, _, stderr in results:
        assert code == 0, stderr
    return [torch.load(folder / f"seen.{rank}") for rank in range(3)]


def assert_close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_a_group_computes_what_one_process_does(seen, case):
    block, _, group = case.split()
    images = shares(group)
    members = MEMBERS[group]
    joined = [torch.cat([images[rank][i] for rank in members]) for i in (0, 1)]
    expected = step(block, *joined)
    together = [seen[rank][case] for rank in members]
    for name in ("output", "images"):
        assert_close(
            torch.cat([process[name] for process in together]), expected[name]
        )
    for process in together:
        assert_close(process["gradients"], expected["gradients"])
        assert_close(process["statistics"], expected["statistics"])


@pytest.mark.parametrize("case", [c for c in CASES if c.endswith("pair")])
def test_who_is_outside_the_group_computes_alone(seen, case):
    expected = step(case.split()[0], *shares("pair")[2])
    assert_close(seen[2][case], expected)


def test_without_processes_there_is_no_group():
    for norm in (nn.BatchNorm2d(3), nn.SyncBatchNorm(3), SyncBatchNorm(3)):
        assert group_of(norm) is None


if __name__ == "__main__":
    main()
