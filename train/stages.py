"""The stages of a network: which are frozen, how fast the others learn.

A stage is what computes at one size of map, counted from the images; the first
has the stem as well. The head is behind the last.
"""

from typing import Any

from torch import nn

from san.networks import SAN, ResNet
from san.recipe import Recipe

_OF_SAN = ("conv", "layer", "bn")


def stages_of(model: nn.Module) -> list[list[nn.Module]]:
    """The modules of each stage, from the images to the head's input.

    Raises:
      ValueError: if the model is no SAN and no ResNet.
    """
    modules: Any = model
    if isinstance(model, SAN):
        stages = [
            [model.get_submodule(f"{name}{stage}") for name in _OF_SAN]
            for stage in range(model.num_stages)
        ]
        stages[0] += [modules.conv_in, modules.bn_in]
    elif isinstance(model, ResNet):
        stages = [[model.get_submodule(f"layer{n}")] for n in range(1, 5)]
        stages[0] += [modules.conv1, modules.bn1]
    else:
        raise ValueError(
            "Recipe: frozen_stages must be 0, and depth_decay 1, of networks"
            f" other than SAN and ResNet, got a {type(model).__name__}"
        )
    return stages


def frozen(model: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """The modules that the recipe freezes.

    Raises:
      ValueError: if the network has fewer stages.
    """
    if not recipe.frozen_stages:
        return []
    stages = stages_of(model)
    if recipe.frozen_stages > len(stages):
        raise ValueError(
            "Recipe: frozen_stages must be at most the network's,"
            f" {len(stages)}, got {recipe.frozen_stages}"
        )
    stages = stages[: recipe.frozen_stages]
    return [module for stage in stages for module in stage]


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Takes the frozen stages out of what is trained; see frozen."""
    for module in frozen(model, recipe):
        module.requires_grad_(False)


def train_mode(network: nn.Module, model: nn.Module, recipe: Recipe) -> None:
    """Training mode for all but the frozen stages, whose norms stay constant.

    Args:
      network: the model, or a wrapper of it.
      model: the network itself.
      recipe: the hyperparameters.
    """
    network.train()
    for module in frozen(model, recipe):
        module.eval()


def distances(model: nn.Module, recipe: Recipe) -> dict[nn.Parameter, int]:
    """How many stages lie between each trained parameter and the head, plus 1.

    That of the head is 0. Without a decay by depth all are 0.
    """
    found = {p: 0 for p in model.parameters() if p.requires_grad}
    if recipe.depth_decay == 1:
        return found
    for distance, stage in enumerate(reversed(stages_of(model)), 1):
        for module in stage:
            for parameter in module.parameters():
                if parameter in found:
                    found[parameter] = distance
    return found
