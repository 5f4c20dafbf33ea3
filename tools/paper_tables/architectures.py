"""Table 1: what the three sizes of SAN consist of, read off the networks."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

import san
from tools.paper_tables.layout import Table

_SIZES = ("san10", "san15", "san19")
_SIDE = 224


def architectures() -> Table:
    """Pairwise and patchwise networks are alike in it."""
    with torch.device("meta"):
        networks = [san.create_model(f"{size}_pair") for size in _SIZES]
    return Table(
        "Table 1: architectures, for images of 224 x 224",
        ("layers", "output", *map(str.upper, _SIZES)),
        list(_rows(networks)),
        ["[k x k sa, M; linear, C]: attention with this footprint, expanded"],
    )


def _rows(networks: Sequence[Any]) -> Iterator[list[str]]:
    first, alike = networks[0], len(networks)
    width = first.conv_in.out_channels
    yield ["input", _image(_SIDE, width), *[f"linear, {width}"] * alike]
    for stage in range(first.num_stages):
        width = first.get_submodule(f"conv{stage}").out_channels
        output = _image(_SIDE // 2 ** (stage + 1), width)
        transition = f"2 x 2 pool; linear, {width}"
        yield ["transition", output, *[transition] * alike]
        stages = [n.get_submodule(f"layer{stage}") for n in networks]
        yield ["attention", output, *map(_blocks, stages)]
    classes = first.fc.out_features
    head = f"mean; linear, {classes}"
    yield ["classification", _image(1, classes), *[head] * alike]


def _image(side: int, channels: int) -> str:
    return f"{side} x {side} x {channels}"


def _blocks(stage: Any) -> str:
    block = stage[0]
    size = block.sam.kernel_size
    return (
        f"[{size} x {size} sa, {block.sam.out_channels};"
        f" linear, {block.conv.out_channels}] x {len(stage)}"
    )
