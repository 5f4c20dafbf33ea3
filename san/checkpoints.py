"""Reads network weights from checkpoint files of all kinds, safely.

The published files and our own hold a dict with the entry `state_dict`, those
of other tools one of another name, often with a wrapper's name before every
name. What kind a file is, its bytes say, not its name. This is not the writer
of checkpoints: that is the training's work folder.
"""

import argparse
import errno
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import nn

from san import digest, safetensors_file

_MAX_LISTED = 3
_LFS_POINTER = b"version https://git-lfs"
# Plain data too: accuracies are often saved as NumPy's numbers, and a command's
# arguments as they were parsed.
_PLAIN: list[Any] = [
    argparse.Namespace,
    scalar,
    (scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")),
]

# What DistributedDataParallel, torch.compile and Lightning put before the name
# of every entry, also one after the other.
_WRAPPERS = ("module.", "_orig_mod.", "model.")

# The counter of torch's AveragedModel, beside names that begin with `module.`.
_AVERAGED = "n_averaged"

# Of our own checkpoints: what is trained where `state_dict` is its average.
TRAINED = "trained_state_dict"


def load_published_checkpoint(
    model: nn.Module, path: str | os.PathLike[str]
) -> nn.Module:
    """Gives a model the weights of a published .pth file.

    Args:
      model: the network that the file was saved from, on any device. Stays
        as it is if an error is raised.
      path: the file; see read_state_dict.

    Returns:
      The model itself.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is no checkpoint or belongs to another network;
        names the entries that do not fit.
    """
    load_state_dict(model, read_state_dict(path), source=str(path))
    return model


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Reads the weights from a checkpoint file, onto the CPU.

    Nothing in the file is executed: it may hold tensors and plain values
    only.

    Args:
      path: a file written by torch.save with a dict that has one network's
        state dict as an entry, whatever its name, or with the state dict
        alone; or a safetensors file.

    Returns:
      Tensors by name, without the names of wrappers that all of them begin
      with: `module.`, `_orig_mod.`, `model.`, or several.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is no checkpoint, or holds several networks.
    """
    return state_dict_of(read_checkpoint(path), path)


def state_dict_of(
    checkpoint: dict[str, Any], path: str | os.PathLike[str]
) -> dict[str, torch.Tensor]:
    """The weights of what read_checkpoint has read; see read_state_dict.

    Args:
      checkpoint: what was read.
      path: the file, for the error.

    Raises:
      ValueError: as read_state_dict.
    """
    state_dict = _find_state_dict(checkpoint, path)
    fault = _find_fault(state_dict)
    if fault:
        raise ValueError(
            "read_state_dict: file must hold a dict of tensors, by itself or "
            f"as an entry such as 'state_dict', got {fault} in {path}"
        )
    entries = dict(state_dict)
    if _wrapping(name for name in entries if name != _AVERAGED):
        entries.pop(_AVERAGED, None)
    prefix = _wrapping(entries)
    return {
        name.removeprefix(prefix): tensor for name, tensor in entries.items()
    }


def _find_state_dict(
    checkpoint: dict[str, Any], path: str | os.PathLike[str]
) -> Any:
    """What should be the state dict of a file.

    Raises:
      ValueError: if there are several, such as weights and their average.
    """
    found = {
        name: entry
        for name, entry in checkpoint.items()
        if name != TRAINED and is_state_dict(entry)
    }
    if len(found) > 1:
        listed = _list(
            f"{name} ({len(entry)} tensors)" for name, entry in found.items()
        )
        raise ValueError(
            "read_state_dict: file must hold the weights of one network, got"
            f" {listed} in {path}; save the one that is meant by itself"
        )
    if found:
        return next(iter(found.values()))
    return checkpoint.get("state_dict", checkpoint)


def is_state_dict(entry: Any) -> bool:
    """Whether an entry of a file is a state dict.

    Names of a network have dots; those of a loss or of random states, which
    some tools save beside it, do not.
    """
    return (
        isinstance(entry, Mapping)
        and not _find_fault(entry)
        and any("." in name for name in entry)
    )


def _wrapping(names: Iterable[str]) -> str:
    """The names of wrappers that all names begin with, one after the other."""
    rest = shared = _shared_start(names)
    while wrapper := next(filter(rest.startswith, _WRAPPERS), None):
        rest = rest.removeprefix(wrapper)
    return shared.removesuffix(rest)


def _shared_start(names: Iterable[str]) -> str:
    """The modules that all names begin with, such as "net.backbone."."""
    paths = (name.split(".")[:-1] for name in names)
    return "".join(
        f"{parts[0]}."
        for parts in itertools.takewhile(
            lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)
        )
    )


def read_checkpoint(
    path: str | os.PathLike[str], verify: bool = True
) -> dict[str, Any]:
    """Reads a whole checkpoint file onto the CPU, executing nothing in it.

    Args:
      path: the file, of torch.save or of safetensors. The weights of the
        latter are the entry `state_dict`, beside what it says of them if it
        is one of ours.
      verify: refuse it if it has a digest of other bytes. Without that it is
        what a damaged file still says.

    Raises:
      FileNotFoundError: if there is no such file.
      OSError: if it may not be read.
      ValueError: if the file is damaged, or no dict of tensors and plain
        values.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"read_checkpoint: path must be a checkpoint file, got {path}"
        )
    content = _read(path)
    read = _read_torch
    if safetensors_file.looks_like(content):
        read = _read_safetensors
    return read(content, path, verify)


def has_digest(path: str | os.PathLike[str]) -> bool:
    """Whether a file that can be read has a digest, which was verified."""
    content = _read(path)
    if safetensors_file.looks_like(content):
        return safetensors_file.has_digest(content)
    return digest.is_signed(content)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of all bytes of a file, as sha256sum prints it."""
    return hashlib.sha256(_read(path)).hexdigest()


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of safetensors, whatever its name."""
    return safetensors_file.looks_like(_read(path))


def _read_torch(
    content: bytes, path: str | os.PathLike[str], verify: bool
) -> dict[str, Any]:
    if verify and digest.is_damaged(content):
        raise _damaged(path, "")
    try:
        with torch.serialization.safe_globals(_PLAIN):
            checkpoint = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
    # A damaged file can fail in whatever its bytes happen to say.
    except Exception as error:
        raise ValueError(_describe(error, path, content)) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            "read_checkpoint: file must hold a dict, "
            f"got {type(checkpoint).__name__} in {path}"
        )
    return checkpoint


def _read_safetensors(
    content: bytes, path: str | os.PathLike[str], verify: bool
) -> dict[str, Any]:
    try:
        is_damaged = verify and safetensors_file.is_damaged(content)
        tensors, texts = safetensors_file.unpack(content)
        facts = json.loads(texts.get(safetensors_file.FACTS, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "read_checkpoint: file must be a whole safetensors file, got"
            f" {path}, which is damaged or of another kind ({error})"
        ) from error
    if is_damaged or not isinstance(facts, dict) or "state_dict" in facts:
        raise _damaged(path, ", or that another tool has changed")
    return {**facts, "state_dict": tensors}


def _damaged(path: str | os.PathLike[str], otherwise: str) -> ValueError:
    return ValueError(
        "read_checkpoint: file must hold the bytes that were saved, got"
        f" {path}, which is damaged{otherwise}: its SHA-256 is not the one it"
        " names"
    )


def load_state_dict(
    model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str
) -> None:
    """Gives a model all weights of a state dict, or none.

    Args:
      model: the network that the weights belong to, or a wrapper of it.
      state_dict: tensors by name, as of read_state_dict or with the names of
        the model's own wrappers.
      source: where the weights come from, for the error.

    Raises:
      ValueError: if entries are missing, extra or of another shape; names
        them.
    """
    own = model.state_dict()
    # What all names begin with tells nothing, on either side.
    wrapping, theirs = _wrapping(own), _wrapping(state_dict)
    state_dict = {
        wrapping + name.removeprefix(theirs): tensor
        for name, tensor in state_dict.items()
    }
    faults = {
        "missing": [name for name in own if name not in state_dict],
        "extra": [name for name in state_dict if name not in own],
        "misshapen": [
            f"{name} {list(tensor.shape)} instead of {list(own[name].shape)}"
            for name, tensor in state_dict.items()
            if name in own and tensor.shape != own[name].shape
        ],
    }
    if any(faults.values()):
        lists = "; ".join(
            f"{len(entries)} {fault}: {_list(entries)}"
            for fault, entries in faults.items()
            if entries
        )
        raise ValueError(
            "load_state_dict: entries must be those of the model, "
            f"got {lists}{_foreign_prefix(state_dict, own)}; in {source}"
        )
    model.load_state_dict(state_dict)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # So a disk says that it cannot read what was written to it.
        raise ValueError(_describe(error, path, b"")) from error


def _foreign_prefix(names: Iterable[str], own: Iterable[str]) -> str:
    """Says it if names are the model's but for what all of them begin with."""
    prefix = _shared_start(names)
    if prefix and {name.removeprefix(prefix) for name in names} == set(own):
        return f"; without the prefix {prefix!r} of all names they would fit"
    return ""


def _describe(
    error: Exception, path: str | os.PathLike[str], content: bytes
) -> str:
    """Why torch.load refused a file, without its advice to trust the file."""
    if content.startswith(_LFS_POINTER):
        return (
            "read_checkpoint: file must be a checkpoint, got"
            f" {path}, a pointer to one that Git LFS has not fetched; git lfs"
            " pull does"
        )
    name = re.search(r"GLOBAL (\S+)", str(error))
    if name:
        return (
            "read_checkpoint: file must hold tensors and plain values only, "
            f"got the name {name[1]} in {path}; nothing of it was executed"
        )
    return (
        "read_checkpoint: file must be a whole checkpoint written by "
        f"torch.save or safetensors, got {path}, which is damaged or of"
        f" another kind ({type(error).__name__})"
    )


def _find_fault(state_dict: Any) -> str:
    """What keeps a value from being a state dict, or nothing."""
    if not isinstance(state_dict, Mapping):
        return f"one {type(state_dict).__name__}"
    if not state_dict:
        return "an empty dict"
    return _list(
        f"{name} ({type(entry).__name__})"
        for name, entry in state_dict.items()
        if not isinstance(name, str) or not isinstance(entry, torch.Tensor)
    )


def _list(entries: Iterable[str]) -> str:
    entries = list(entries)
    listed = ", ".join(entries[:_MAX_LISTED])
    num_more = len(entries) - _MAX_LISTED
    return f"{listed} and {num_more} more" if num_more > 0 else listed
