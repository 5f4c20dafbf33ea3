"""What a checkpoint says beside its weights, as plain values that travel."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eval import class_order, loading
from san import checkpoints
from san.checkpoints import TRAINED, is_state_dict
from san.data import Data
from san.jobs import config, valid_json
from san.networks import pretrained
from san.networks.architecture import architecture
from san.networks.zoo import names_of

UNKNOWN = "unknown"

# Of a checkpoint of ours, and of a published one. Not the optimiser's state,
# without which training cannot go on, and not the path of the images.
# Other tools have other things by these names: of what kind each is.
_KEPT: dict[str, Any] = {
    **dict.fromkeys(("epoch", "num_images", "averaged"), int),
    **dict.fromkeys(("top1_val", "top5_val"), int | float),
    **dict.fromkeys(("images", "network", "source", "license"), str),
    **dict.fromkeys(("recipe", "settings", "state", "architecture"), dict),
    **dict.fromkeys(("configuration", "preprocessing"), dict),
    "classes": list,
    "origin": dict | None,
}


def kept(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, as JSON has it.

    Args:
      checkpoint: as checkpoints.read_checkpoint has read it.
    """
    found = {
        name: _plain(checkpoint[name]) for name in _KEPT if name in checkpoint
    }
    found = {
        name: value
        for name, value in found.items()
        if isinstance(value, _KEPT[name])
    }
    if TRAINED in checkpoint:
        found["averaged"] = True
    _shorten(found, "recipe", "initial_checkpoint")
    _shorten(found, "settings", "Recipe.initial_checkpoint")
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it; ... where that has no word for it."""
    try:
        return json.loads(valid_json.line_of(value))
    except (TypeError, ValueError):
        return ...


def left_out(checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of what a checkpoint holds beside that and its weights."""
    if is_state_dict(checkpoint):
        return []
    found = kept(checkpoint)
    return [
        str(name)
        for name, entry in checkpoint.items()
        if name not in found and (name == TRAINED or not is_state_dict(entry))
    ]


def of_network(
    network: loading.Network,
    classes: Sequence[str] | None,
    source: str | None,
    licence: str | None,
) -> dict[str, Any]:
    """What travels with the weights of a network that was read.

    Args:
      network: of the configuration that there is.
      classes: names of its outputs; None where they are unknown.
      source: where it comes from; None for what the checkpoint says.
      licence: of the weights, likewise.
    """
    facts = kept(network.checkpoint)
    data = dataclasses.asdict(Data())
    sizes = ("image_size", "resize_size", "mean", "std")
    facts |= {
        "network": network.name,
        "architecture": architecture(network.model),
        "configuration": {
            name: value
            for name, value in config.bindings().items()
            if not name.startswith("Recipe.")
        },
        "preprocessing": {name: data[name] for name in sizes},
        "classes": classes,
        "source": source or facts.get("source") or _source(facts),
        "license": licence or facts.get("license") or UNKNOWN,
    }
    # In one order, whatever file they came from: equal facts, equal bytes.
    facts = {name: facts[name] for name in _KEPT if name in facts}
    return json.loads(valid_json.line_of(facts))


def other_dtypes(checkpoint: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Which dtypes weights had that they do not have in the network.

    Args:
      checkpoint: as it was read.
      model: with its weights.
    """
    own = model.state_dict()
    theirs = checkpoints.state_dict_of(dict(checkpoint), "")
    return sorted(
        {
            str(tensor.dtype).removeprefix("torch.")
            for name, tensor in theirs.items()
            if name in own and tensor.dtype != own[name].dtype
        }
    )


def _shorten(facts: dict[str, Any], entry: str, name: str) -> None:
    """Leaves of a path the file's name: folders are nobody else's affair."""
    values = facts.get(entry)
    if isinstance(values, dict) and isinstance(values.get(name), str):
        # The settings have it in quotes.
        folders, slash, file = values[name].rpartition("/")
        quote = folders[:1] if slash and folders[:1] in ("'", '"') else ""
        values[name] = quote + file


def _source(facts: Mapping[str, Any]) -> str:
    if {"recipe", "state"} <= facts.keys():
        return "trained by //train:main of this project"
    return UNKNOWN


def figures(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The validation of these very weights; what is not known is missing.

    Args:
      facts: of a checkpoint.
    """
    state = facts.get("state")
    if isinstance(state, dict):
        # Within an epoch the weights are no longer those validated last.
        latest = None if state.get("step") else state.get("latest")
        return dict(latest) if isinstance(latest, dict) else {}
    names = {"top1": "top1_val", "top5": "top5_val"}
    return {
        name: facts[entry]
        for name, entry in names.items()
        if isinstance(facts.get(entry), int | float)
    }


def summary(
    checkpoint: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What `inspect` says of the contents of a file; None for what it lacks.

    Args:
      checkpoint: as it was read.
      state_dict: its weights.
    """
    facts = kept(checkpoint)
    count = pretrained.num_classes_of(state_dict)
    names = class_order.class_names(dict(checkpoint), count) if count else None
    fitting = names_of(state_dict, checkpoint.get("architecture"))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return {
        "network": facts.get("network"),
        "weights_fit": " or ".join(fitting) or "no network of a name",
        "architecture": facts.get("architecture"),
        "parameters": sum(
            tensor.numel()
            for name, tensor in state_dict.items()
            if not name.endswith(buffers)
        ),
        "dtypes": sorted(
            {
                str(tensor.dtype).removeprefix("torch.")
                for tensor in state_dict.values()
                if tensor.dtype != torch.int64  # Counts of batches.
            }
        ),
        "not_finite": [
            name
            for name, tensor in state_dict.items()
            if tensor.is_floating_point()
            and tensor.layout == torch.strided
            and not tensor.double().isfinite().all()  # Those of 8 bits, too.
        ],
        "num_classes": count,
        "classes": names,
        "epochs": facts.get("epoch"),
        "figures": figures(facts) or None,
        "averaged": facts.get("averaged", False) if facts else None,
        "began_with": facts.get("origin", UNKNOWN) or "fresh weights",
        "preprocessing": facts.get("preprocessing"),
        "source": facts.get("source"),
        "license": facts.get("license"),
    }
