"""The networks: SAN, the ResNet baselines, both by name, the paper's rows."""

from san.networks.features import FeaturePyramid
from san.networks.paper import PaperRow, paper_rows
from san.networks.resnet import ResNet
from san.networks.san import SAN, Bottleneck
from san.networks.stochastic_depth import set_stochastic_depth
from san.networks.zoo import create_model, list_models

__all__ = [
    "SAN",
    "Bottleneck",
    "FeaturePyramid",
    "PaperRow",
    "ResNet",
    "create_model",
    "list_models",
    "paper_rows",
    "set_stochastic_depth",
]
