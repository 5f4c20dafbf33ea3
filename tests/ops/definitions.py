"""The core of pairwise attention in plain torch."""

import torch
import torch.nn.functional as F


def attend(
    features, scale, shift, table, w1, w2, kernel_size, factors=torch.float64
):
    """san::pairwise_core; the factors of its products rounded to a dtype."""

    def factor(tensor):
        return tensor.to(factors).to(tensor.dtype)

    size, reach = features.shape[2:], kernel_size // 2
    own = torch.arange(size.numel())
    image = own.double().view(1, 1, *size)
    # Of images narrower than the padding, too: mirrored again and again.
    rows, columns = (mirrored(n, reach) for n in size)
    padded = image[:, :, rows][..., columns]
    pixel = F.unfold(padded, kernel_size)[0].long()
    down = pixel // size[1] - own // size[1] + reach
    right = pixel % size[1] - own % size[1] + reach
    steps = table[down * kernel_size + right].permute(2, 0, 1)
    relation = len(scale)
    phi, psi = features[:, : 2 * relation].flatten(2).split(relation, 1)
    beta = features[:, 2 * relation :].flatten(2)[:, :, pixel]
    scale, shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
    a = (scale * (phi[:, :, None] - psi[:, :, pixel]) + shift).relu()
    z = torch.einsum("ri,nikp->nrkp", factor(w1), factor(a))
    z = (z + steps).relu()
    logits = torch.einsum("gr,nrkp->ngkp", factor(w2), factor(z))
    weights = logits.softmax(2).repeat(1, beta.shape[1] // len(w2), 1, 1)
    return (weights * beta).sum(2).unflatten(2, size)


def mirrored(size, reach):
    """The pixel that each one of a padded line shows."""
    position = torch.arange(-reach, size + reach)
    if size == 1:
        return torch.zeros_like(position)
    period = 2 * (size - 1)
    position = position % period
    return torch.minimum(position, period - position)
