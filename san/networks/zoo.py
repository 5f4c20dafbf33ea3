"""The published networks by name.

Builds them with PyTorch's default initialisation; trained weights are read by
`san.checkpoints`.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Any

import gin
from torch import nn

from san.attention import PairwiseAttention, PatchwiseAttention
from san.networks.resnet import ResNet
from san.networks.san import SAN

# Makes a network from num_classes.
NetworkFactory = Callable[..., nn.Module]

_SAN_BLOCKS = {
    "san10": (2, 1, 2, 4, 1),
    "san15": (3, 2, 3, 5, 2),
    "san19": (3, 3, 4, 6, 3),
}
_RESNET_BLOCKS = {
    "resnet26": (1, 2, 4, 1),
    "resnet38": (2, 3, 5, 2),
    "resnet50": (3, 4, 6, 3),
}
_ATTENTIONS = {"pair": PairwiseAttention, "patch": PatchwiseAttention}


def _networks() -> dict[str, functools.partial[Any]]:
    networks: dict[str, functools.partial[Any]] = {
        f"{size}_{kind}": functools.partial(
            SAN, attention=attention, num_blocks=blocks
        )
        for size, blocks in _SAN_BLOCKS.items()
        for kind, attention in _ATTENTIONS.items()
    }
    for name, blocks in _RESNET_BLOCKS.items():
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
        san10_pairwise, are known too. Or a constructor that takes
        num_classes, so that a gin file can describe a network of its own:
        `create_model.name = @SAN`.
      num_classes: length of the network's output.

    Returns:
      A module that maps images [N, 3, H, W] to logits [N, num_classes].

    Raises:
      ValueError: if the name is unknown, gin binds what the name says, or
        num_classes is no positive integer.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            "create_model: num_classes must be a positive integer, "
            f"got {num_classes!r}"
        )
    factory = name if callable(name) else _find(name)
    return factory(num_classes=num_classes)


def _find(name: str) -> NetworkFactory:
    factory = _row(name)
    for parameter in factory.keywords:
        network = factory.func.__name__
        if _is_bound(f"{network}.{parameter}"):
            raise ValueError(
                f"create_model: {network}.{parameter} must not be bound beside "
                f"create_model.name = {name!r}, which says it; bind "
                f"create_model.name = @{network} and all of {network}"
            )
    return factory


def _is_bound(parameter: str) -> bool:
    """Whether a gin file or binding has said something of a parameter."""
    try:
        gin.query_parameter(parameter)
    except ValueError:
        return False
    return True


def _row(name: str) -> functools.partial[Any]:
    short = str(name).removesuffix("wise")
    if short in _NETWORKS:
        return _NETWORKS[short]
    nearest = difflib.get_close_matches(short, _NETWORKS, n=1, cutoff=0)
    raise ValueError(
        f"create_model: name must be one of {', '.join(_NETWORKS)}, "
        f"got {name!r}; the nearest is {nearest[0]!r}"
    )
