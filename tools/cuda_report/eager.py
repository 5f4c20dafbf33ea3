"""Bytes that the published design moves with eager PyTorch, and their time.

Each operator reads and writes its tensors once: subtraction, positions,
concatenation, norms (in training their statistics are one more reading), ReLUs,
1x1 convolutions, softmax and aggregation, after the published code. A tensor of
one channel with all taps is the unit; the few without taps are counted too.
"""

from tools.cuda_report.entries import DataType
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import Layer

_POSITIONS = 2  # channels of the relative position


def seconds(
    group: str, passed: str, layer: Layer, data_type: DataType, device: Device
) -> float | None:
    """Time of a block's attention core; None for what has no eager model.

    Args:
      group: of an entry.
      passed: `forward` of inference or `training`, forward and backward.
      layer: the sizes.
      data_type: of all tensors.
      device: whose bandwidth, of which eager kernels reach a part.
    """
    moved = core_bytes(group, passed, layer, data_type)
    if moved is None:
        return None
    return moved / (device.copy_bandwidth * device.eager_bandwidth)


def core_bytes(
    group: str, passed: str, layer: Layer, data_type: DataType
) -> float | None:
    """Bytes of a block's attention core for the batch, or None."""
    counts = {
        ("pairwise core", "forward"): _pairwise_forward,
        ("pairwise core", "training"): _pairwise_training,
        ("patchwise core", "forward"): _patchwise_forward,
        ("patchwise core", "training"): _patchwise_training,
    }
    if (group, passed) not in counts:
        return None
    with_taps = counts[group, passed](layer)
    without = 2 * layer.R + 2 * layer.M
    if passed == "training":
        without += 2 * layer.R + 3 * layer.M
    channels = with_taps * layer.K + without
    return layer.pixels * channels * data_type.bytes


def _pairwise_forward(layer: Layer) -> float:
    R, G = layer.R, layer.G
    both = R + _POSITIONS
    relation = both + 2 * both  # written, then concatenated
    first = 2 * both + 2 * both + both + R  # norm, ReLU, convolution
    second = 2 * R + 2 * R + R + G
    return relation + first + second + 2 * G + G


def _pairwise_training(layer: Layer) -> float:
    R, G = layer.R, layer.G
    both = R + _POSITIONS
    statistics = both + R
    second = 3 * G + 3 * G + 2 * (G + R) + 3 * R + 5 * R
    first = 2 * (R + both) + 3 * both + 5 * both
    relation = 2 * both + 2 * both
    return _pairwise_forward(layer) + statistics + second + first + relation


def _patchwise_forward(layer: Layer) -> float:
    R, G, K = layer.R, layer.G, layer.K
    entries, hidden = R * (K + 1) / K, G / K
    relation = R + 2 * entries
    first = 2 * entries + 2 * entries + entries + hidden
    second = 2 * hidden + 2 * hidden + hidden + G
    return relation + first + second + G


def _patchwise_training(layer: Layer) -> float:
    R, G, K = layer.R, layer.G, layer.K
    entries, hidden = R * (K + 1) / K, G / K
    statistics = entries + hidden
    second = 3 * G + 2 * (G + hidden) + 8 * hidden
    first = 2 * (entries + hidden) + 3 * entries + 5 * entries
    relation = 2 * entries + R
    return _patchwise_forward(layer) + statistics + second + first + relation
