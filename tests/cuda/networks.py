"""The small networks that these tests run."""

import torch

import san

_ATTENTIONS = {"pair": san.PairwiseAttention, "patch": san.PatchwiseAttention}


def small_san(kind, num_blocks=(1, 1, 1, 1, 1)):
    """The same SAN each time, in float32 on the CPU, in eval mode."""
    torch.manual_seed(0)
    return san.SAN(
        _ATTENTIONS[kind],
        num_blocks=num_blocks,
        widths=(32, 64, 64, 96, 96),
        num_classes=4,
    ).eval()
