"""The relations of the paper's table 4 as one writes them in plain PyTorch.

What `san.attention.relations` has to beat; nothing here is tuned for them.

Shape letters: N batch, R channels of phi and psi, K = k * k taps, H W image,
P = H * W pixels. Each way takes phi and psi [N, R, H, W] and k.
"""

import functools
import operator
from collections.abc import Callable

import torch

from tools.benchmark import peers

Way = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
_Comparison = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def unfold_patch(phi: torch.Tensor, psi: torch.Tensor, k: int) -> torch.Tensor:
    """Psi of all taps: [N, R * K, 1, P]."""
    return peers.unfolded(psi, k).flatten(1, 2).unsqueeze(2)


def _concatenated(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    return torch.cat([here.expand_as(there), there], dim=1)


def _dot(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    return (here * there).sum(1, keepdim=True)


# Of phi [N, R, 1, P] with psi of some taps.
_COMPARISONS: dict[str, _Comparison] = {
    "summation": operator.add,
    "subtraction": operator.sub,
    "concatenation": _concatenated,
    "hadamard": operator.mul,
    "dot": _dot,
}


def _unfold(
    compare: _Comparison, phi: torch.Tensor, psi: torch.Tensor, k: int
) -> torch.Tensor:
    """All taps at once: [N, D, K, P]."""
    return compare(_row(phi), peers.unfolded(psi, k))


def _tap_loop(
    compare: _Comparison, phi: torch.Tensor, psi: torch.Tensor, k: int
) -> torch.Tensor:
    """Tap by tap: [N, D, K, P]."""
    here, image = _row(phi), peers.padded(psi, k)
    parts = [
        compare(here, _row(image[..., rows, columns]))
        for _, rows, columns in peers.shifts(psi, k)
    ]
    return torch.cat(parts, dim=2)


def _row(image: torch.Tensor) -> torch.Tensor:
    return image.flatten(2).unsqueeze(2)


def _unfold_star(phi: torch.Tensor, psi: torch.Tensor, k: int) -> torch.Tensor:
    return _unfold(_dot, phi, psi, k).transpose(1, 2)


def _loop_star(phi: torch.Tensor, psi: torch.Tensor, k: int) -> torch.Tensor:
    return _tap_loop(_dot, phi, psi, k).transpose(1, 2)


def _unfold_clique(
    phi: torch.Tensor, psi: torch.Tensor, k: int
) -> torch.Tensor:
    """All pairs of taps, as a product of matrices at each pixel."""
    both = peers.unfolded(phi, k), peers.unfolded(psi, k)
    pairs = torch.einsum("nckp,nctp->nktp", *both)
    return pairs.flatten(1, 2).unsqueeze(2)


def _unfold_patch_concatenation(
    phi: torch.Tensor, psi: torch.Tensor, k: int
) -> torch.Tensor:
    return torch.cat([_row(phi), unfold_patch(phi, psi, k)], dim=1)


PAIRWISE_BY_UNFOLD: dict[str, Way] = {
    name: functools.partial(_unfold, compare)
    for name, compare in _COMPARISONS.items()
}
PATCHWISE_BY_UNFOLD: dict[str, Way] = {
    "star": _unfold_star,
    "clique": _unfold_clique,
    "concatenation": _unfold_patch_concatenation,
}
PAIRWISE_BY_TAP_LOOP: dict[str, Way] = {
    name: functools.partial(_tap_loop, compare)
    for name, compare in _COMPARISONS.items()
}
PATCHWISE_BY_TAP_LOOP: dict[str, Way] = {"star": _loop_star}
