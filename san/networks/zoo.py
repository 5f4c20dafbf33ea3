"""The published networks by name, those of the paper's rows among them.

Builds them with PyTorch's default initialisation, or with the weights of a
file, which `san.checkpoints` reads and `pretrained` fits in.
"""

import difflib
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gin
import numpy as np
import torch
from torch import Tensor, nn

from san import checkpoints
from san.networks import pretrained
from san.networks.architecture import differences
from san.networks.bindings import bound, is_bound
from san.networks.features import FeaturePyramid
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

_MAX_NAMES = 3  # In a message.
# What depends on the channels of the images, of a SAN and of a ResNet.
_FIRST_WEIGHTS = (["conv_in.weight"], ["conv1.weight"])


def list_models() -> list[str]:
    """The names that create_model knows, in the order of the paper's table."""
    return list(_NETWORKS)


@gin.configurable(
    module="san", denylist=["checkpoint", "features", "in_channels"]
)
def create_model(
    name: str | NetworkFactory | None = None,
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    features: bool = False,
    in_channels: int = 3,
) -> nn.Module:
    """Builds a network, in training mode.

    Args:
      name: one of list_models(); the published long names, such as
        san10_pairwise, are known too. Or the name of one of
        san.paper_rows(), such as "table4/pair/hadamard", which says
        everything but the size: RowSize makes those of tables 4 to 8
        smaller. Or a constructor that takes num_classes, so that a gin file
        can describe a network of its own: `create_model.name = @SAN`. It
        must be given beside a checkpoint too, whose weights may fit several.
      num_classes: length of the network's output; None for that of the
        checkpoint, or 1000 without one.
      checkpoint: a file to take the weights from instead of fresh ones:
        published, ours or of another tool, of torch.save or safetensors; see
        san.checkpoints. A head of another number of classes is left out, and
        a warning says so.
      features: make the network's pyramid of maps, without its head: a
        FeaturePyramid.
      in_channels: channels of the images; those of the checkpoint, if there
        is one.

    Returns:
      A module that maps images [N, in_channels, H, W] to logits
      [N, num_classes], or to maps by name.

    Raises:
      ValueError: if the name is missing or unknown, gin binds what the name
        says or a RowSize that it does not read, a number is no positive
        integer, or the checkpoint is no good or of another network; says of
        which.
      FileNotFoundError: if there is no such checkpoint.
    """
    # A pyramid has no head, however many classes it had.
    if features and num_classes is not None:
        raise ValueError(
            "create_model: num_classes must not be given beside features, "
            f"which have no classes, got {num_classes!r}"
        )
    if num_classes is not None:
        num_classes = _count("num_classes", num_classes)
    arguments = {}
    if (in_channels := _count("in_channels", in_channels)) != 3:
        arguments["in_channels"] = in_channels
    if name is None:
        raise ValueError(_no_name(checkpoint))
    factory = _factory(name)
    read: dict[str, Any] = {}
    if checkpoint is not None:
        read = checkpoints.read_checkpoint(checkpoint)
        if num_classes is None:
            num_classes = pretrained.num_classes_of(
                checkpoints.state_dict_of(read, checkpoint)
            )
    model = factory(num_classes=num_classes or 1000, **arguments)
    if features:
        model = FeaturePyramid(model)
    if checkpoint is not None:
        _load(model, read, checkpoint)
    return model


def _no_name(path: str | os.PathLike[str] | None) -> str:
    message = (
        "create_model: name must be given, in Python or by a --gin_file such"
        " as san10_pair.gin, got none"
    )
    if path is None:
        return message
    read = checkpoints.read_checkpoint(path)
    weights = checkpoints.state_dict_of(read, path)
    return message + _fitting(names_of(weights, read.get("architecture")))


def _fitting(names: list[str]) -> str:
    return f"; the weights fit {' or '.join(names)}" if names else ""


def _load(
    model: nn.Module, read: dict[str, Any], path: str | os.PathLike[str]
) -> None:
    """Loads weights; says of those of another network whose they seem to be."""
    try:
        left_out = pretrained.load(model, read, path)
    except ValueError as error:
        state_dict = checkpoints.state_dict_of(read, path)
        advice = _other_channels(model, state_dict)
        if not advice:
            advice = _fitting(names_of(state_dict, read.get("architecture")))
        raise ValueError(f"create_model: {error}{advice}") from error
    # Features have no head: that one is left out was asked for.
    if left_out and not isinstance(model, FeaturePyramid):
        warnings.warn(f"create_model: {left_out}", stacklevel=4)


def _other_channels(model: nn.Module, state_dict: Mapping[str, Tensor]) -> str:
    """What to do if nothing but the channels of the images is otherwise."""
    own, its = _body_shapes(model.state_dict()), _body_shapes(state_dict)
    unlike = [name for name in own if own[name] != its.get(name)]
    if own.keys() != its.keys() or unlike not in _FIRST_WEIGHTS:
        return ""
    channels = its[unlike[0]][1:2].numel()
    return (
        f"; its images have {channels} channels: give in_channels={channels},"
        " and images to match (gray ones by images.expand(-1, 3, -1, -1))"
    )


def names_of(
    state_dict: Mapping[str, Tensor], architecture: Any = None
) -> list[str]:
    """Names the networks of this package that weights fit, but for their head.

    Args:
      state_dict: weights by name.
      architecture: what their file says of its network, if anything.

    Returns:
      The first of them, as create_model takes them.
    """
    shapes = _body_shapes(state_dict)
    # The names of the published networks say the most.
    for names in (_NETWORKS, ROWS):
        fitting = [name for name in names if _fits(name, shapes, architecture)]
        if fitting:
            return fitting[:_MAX_NAMES]
    return []


def _fits(
    name: str, shapes: Mapping[str, torch.Size], architecture: Any
) -> bool:
    try:
        factory = _NETWORKS.get(name) or RowNetwork.of(name).factory()
        with torch.device("meta"):
            model = factory(num_classes=1)
    except ValueError:  # There is none where gin binds SAN.widths, say.
        return False
    return _body_shapes(model.state_dict()) == shapes and not differences(
        architecture, model
    )


def _body_shapes(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {
        name: tensor.shape
        for name, tensor in state_dict.items()
        if not name.startswith("fc.")
    }


def _count(name: str, value: Any) -> int:
    """A positive integer as Python has it."""
    if isinstance(value, np.integer):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"create_model: {name} must be a positive integer, got {value!r}"
        )
    return value


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
