"""The published networks by name, those of the paper's rows among them.

Builds them with PyTorch's default initialisation; trained weights are read by
`san.checkpoints`.
"""

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import gin
import numpy as np
from torch import nn

from san.networks.bindings import bound, is_bound
from san.networks.paper import ROWS
from san.networks.resnet import ResNet
from san.networks.row_networks import (
    ATTENTIONS,
    RESNET_BLOCKS,
    SAN_BLOCKS,
    STRUCTURE,
    RowNetwork,
    RowSize,
)
from san.networks.san import SAN

# Makes a network from num_classes.
NetworkFactory = Callable[..., nn.Module]


def _networks() -> dict[str, functools.partial[Any]]:
    networks: dict[str, functools.partial[Any]] = {
        f"{size}_{kind}": functools.partial(
            SAN, attention=attention, num_blocks=blocks
        )
        for size, blocks in SAN_BLOCKS.items()
        for kind, attention in ATTENTIONS.items()
    }
    for name, blocks in RESNET_BLOCKS.items():
        networks[name] = functools.partial(ResNet, num_blocks=blocks)
    return networks


_NETWORKS = _networks()


def list_models() -> list[str]:
    """The names that create_model knows, in the order of the paper's table."""
    return list(_NETWORKS)


@gin.configurable(module="san")
def create_model(
    name: str | NetworkFactory = gin.REQUIRED, num_classes: int = 1000
) -> nn.Module:
    """Builds a network with fresh weights, in training mode.

    Args:
      name: one of list_models(); the published long names, such as
        san10_pairwise, are known too. Or the name of one of
        san.paper_rows(), such as "table4/pair/hadamard", which says
        everything but the size: RowSize makes those of tables 4 to 8
        smaller. Or a constructor that takes num_classes, so that a gin file
        can describe a network of its own: `create_model.name = @SAN`.
      num_classes: length of the network's output.

    Returns:
      A module that maps images [N, 3, H, W] to logits [N, num_classes].

    Raises:
      ValueError: if the name is unknown, gin binds what the name says or a
        RowSize that it does not read, or num_classes is no positive integer.
    """
    if isinstance(num_classes, np.integer):
        num_classes = int(num_classes)
    is_integer = isinstance(num_classes, int)
    if not is_integer or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(
            "create_model: num_classes must be a positive integer, "
            f"got {num_classes!r}"
        )
    return _factory(name)(num_classes=num_classes)


def _factory(name: str | NetworkFactory) -> NetworkFactory:
    if callable(name):
        _check_size_is_read(f"@{getattr(name, '__name__', name)}", ())
        return name
    if isinstance(name, str) and name in ROWS:
        row = RowNetwork.of(name)
        _check_size_is_read(repr(name), row.sizes)
        factory = row.factory()
        said = bound(STRUCTURE)
    else:
        factory = _named(name)
        _check_size_is_read(repr(name), ())
        network = factory.func.__name__
        said = [f"{network}.{parameter}" for parameter in factory.keywords]
    _check_unbound(name, factory.func.__name__, said)
    return factory


def _check_unbound(name: str, network: str, said: Iterable[str]) -> None:
    """Raises ValueError if gin says what a name says."""
    for parameter in filter(is_bound, said):
        raise ValueError(
            f"create_model: {parameter} must not be bound beside "
            f"create_model.name = {name!r}, which says it; bind "
            f"create_model.name = @{network} and all of {network}"
        )


def _check_size_is_read(name: str, sizes: Iterable[str]) -> None:
    """Raises ValueError if gin says a RowSize, but nothing that is read."""
    read = {f"RowSize.{size}" for size in sizes}
    said = bound([RowSize])
    if not said or read.intersection(said):
        return
    if read:
        raise ValueError(
            f"create_model: {' or '.join(sorted(read))} must be bound beside "
            f"create_model.name = {name}, which does not read "
            f"{', '.join(said)}"
        )
    raise ValueError(
        f"create_model: {said[0]} must be bound beside the name of a row "
        f"of tables 4 to 8, got create_model.name = {name}"
    )


def _named(name: str) -> functools.partial[Any]:
    short = str(name).removesuffix("wise")
    if short in _NETWORKS:
        return _NETWORKS[short]
    (nearest,) = difflib.get_close_matches(
        short, [*_NETWORKS, *ROWS], n=1, cutoff=0
    )
    raise ValueError(
        f"create_model: name must be one of {', '.join(_NETWORKS)}, or of the "
        f"rows that san.paper_rows() lists, got {name!r}; the nearest is "
        f"{nearest!r}"
    )
