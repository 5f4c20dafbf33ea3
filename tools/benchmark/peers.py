"""The operators as one writes them in plain PyTorch, without a kernel.

What the compiled operators have to beat; nothing here is tuned for them.

Shape letters: N batch, C channels, G weight channels, M = C / G channels that
share one, K = k * k taps, H W image, P = H * W pixels. Stride 1, reflect
padding of k // 2 smaller than the image.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

import san


def padded(x: torch.Tensor, k: int) -> torch.Tensor:
    """[N, C, H, W] with k // 2 reflected pixels on each side."""
    return F.pad(x, (k // 2,) * 4, mode="reflect")


def unfolded(x: torch.Tensor, k: int) -> torch.Tensor:
    """All footprints: [N, C, K, P]."""
    return F.unfold(padded(x, k), k).unflatten(1, (x.shape[1], k * k))


def unfold_aggregation(
    x: torch.Tensor, weight: torch.Tensor, k: int
) -> torch.Tensor:
    """Aggregation by unfold, product and sum; as the published test has it."""
    taps = unfolded(x, k).unflatten(1, (-1, weight.shape[1]))
    return (taps * weight.unsqueeze(1)).sum(3).view_as(x)


def einsum_aggregation(
    x: torch.Tensor, weight: torch.Tensor, k: int
) -> torch.Tensor:
    """Aggregation by unfold and einsum."""
    taps = unfolded(x, k).unflatten(1, (-1, weight.shape[1]))
    return torch.einsum("nmgkp,ngkp->nmgp", taps, weight).reshape(x.shape)


def loop_aggregation(
    x: torch.Tensor, weight: torch.Tensor, k: int
) -> torch.Tensor:
    """Aggregation tap by tap: one addcmul of shifted images each."""
    image = padded(x, k).unflatten(1, (-1, weight.shape[1]))
    weights = weight.unflatten(3, x.shape[2:]).unsqueeze(1)
    output = torch.zeros_like(x).unflatten(1, (-1, weight.shape[1]))
    for tap, rows, columns in shifts(x, k):
        output = output.addcmul_(
            image[..., rows, columns], weights[:, :, :, tap]
        )
    return output.flatten(1, 2)


def loop_aggregation_gradients(
    grad_output: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both gradients of loop_aggregation, written by hand."""
    groups = weight.shape[1]
    image = padded(x, k).unflatten(1, (-1, groups))
    weights = weight.unflatten(3, x.shape[2:]).unsqueeze(1)
    grad = grad_output.unflatten(1, (-1, groups))
    grad_image = torch.zeros_like(image)
    grad_weight = torch.empty_like(weight).unflatten(3, x.shape[2:])
    for tap, rows, columns in shifts(x, k):
        grad_weight[:, :, tap] = (grad * image[..., rows, columns]).sum(1)
        grad_image[..., rows, columns].addcmul_(grad, weights[:, :, :, tap])
    return _unpadded(grad_image.flatten(1, 2), x, k), grad_weight.flatten(3)


def unfold_subtraction2(
    a: torch.Tensor, b: torch.Tensor, k: int
) -> torch.Tensor:
    """Subtraction2 by unfold: [N, C, K, P]."""
    return a.flatten(2).unsqueeze(2) - unfolded(b, k)


def loop_subtraction2(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
    """Subtraction2 tap by tap."""
    image = padded(b, k)
    output = a.new_empty((*a.shape[:2], k * k, *a.shape[2:]))
    for tap, rows, columns in shifts(a, k):
        output[:, :, tap] = a - image[..., rows, columns]
    return output.flatten(3)


def loop_subtraction2_gradients(
    grad_output: torch.Tensor, b: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both gradients of loop_subtraction2, written by hand."""
    grad = grad_output.unflatten(3, b.shape[2:])
    grad_image = torch.zeros_like(padded(b, k))
    for tap, rows, columns in shifts(b, k):
        grad_image[..., rows, columns].sub_(grad[:, :, tap])
    return grad.sum(2), _unpadded(grad_image, b, k)


def unfold_correlation(
    a: torch.Tensor, b: torch.Tensor, num_groups: int, k: int
) -> torch.Tensor:
    """Correlation by unfold, product and sum: [N, num_groups, K, P]."""
    products = a.flatten(2).unsqueeze(2) * unfolded(b, k)
    return products.unflatten(1, (-1, num_groups)).sum(1)


class Unfold:
    """What an eager network is made of."""

    aggregation = staticmethod(unfold_aggregation)
    correlation = staticmethod(unfold_correlation)
    subtraction2 = staticmethod(unfold_subtraction2)


class Kernels:
    """San's operators in their place, as the published design has them."""

    @staticmethod
    def aggregation(
        x: torch.Tensor, weight: torch.Tensor, k: int
    ) -> torch.Tensor:
        """san.ops.aggregation with "same" padding."""
        return san.ops.aggregation(x, weight, k, padding=k // 2)

    @staticmethod
    def subtraction2(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
        """san.ops.subtraction2 with "same" padding."""
        return san.ops.subtraction2(a, b, k, padding=k // 2)


def shifts(x: torch.Tensor, k: int) -> Iterator[tuple[int, slice, slice]]:
    """Each tap and the part of the padded image that lies under it."""
    height, width = x.shape[2:]
    for tap in range(k * k):
        row, column = divmod(tap, k)
        yield tap, slice(row, row + height), slice(column, column + width)


def _unpadded(
    grad_image: torch.Tensor, x: torch.Tensor, k: int
) -> torch.Tensor:
    """The gradient of padded()."""
    return torch.ops.aten.reflection_pad2d_backward(
        grad_image, x, (k // 2,) * 4
    )
