"""A small SAN of which every weight and statistic has an effect."""

import torch

import san

ATTENTIONS = {
    "pair": san.PairwiseAttention,
    "patch": san.PatchwiseAttention,
}


def images(batch=3):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(
        batch, 3, 20, 16, generator=generator, dtype=torch.float64
    )


def network(kind):
    """Two stages, in training mode, in float64."""
    torch.manual_seed(0)
    model = san.SAN(ATTENTIONS[kind], (1, 2), (3, 7), (64, 128), 5)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        elif name.endswith(("weight", "var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(0, 0.2, generator=generator)
    return model.double()
