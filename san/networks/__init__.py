"""The networks: SAN, the ResNet baselines, and both by name."""

from san.networks.resnet import ResNet
from san.networks.san import SAN, Bottleneck
from san.networks.zoo import create_model, list_models

__all__ = ["SAN", "Bottleneck", "ResNet", "create_model", "list_models"]
