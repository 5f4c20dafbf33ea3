"""Networks of the paper's rows with their footprints in plain PyTorch.

The same modules with the same parameters, but relations, positions and
aggregation by unfold: what a block is compared with where no fused operator
computes it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

import san
from san.attention import Attention, DotProduct, Patch, Relation, window_ops
from san.attention.relations import PAIRWISE, PATCHWISE
from tools.benchmark import peers, plain_relations

_WAYS: dict[Any, plain_relations.Way] = {
    Patch: plain_relations.unfold_patch,
    **{
        known[name]: way
        for known, ways in (
            (PAIRWISE, plain_relations.PAIRWISE_BY_UNFOLD),
            (PATCHWISE, plain_relations.PATCHWISE_BY_UNFOLD),
        )
        for name, way in ways.items()
    },
}


class _Windows:
    """Stands where the blocks have san.ops, with "same" padding."""

    @staticmethod
    def aggregation(
        input: torch.Tensor, weight: torch.Tensor, kernel_size: int, **_: Any
    ) -> torch.Tensor:
        return peers.Unfold.aggregation(input, weight, kernel_size)

    @staticmethod
    def subtraction2(
        a: torch.Tensor, b: torch.Tensor, kernel_size: int, **_: Any
    ) -> torch.Tensor:
        return peers.Unfold.subtraction2(a, b, kernel_size)

    @staticmethod
    def subtraction(
        x: torch.Tensor, kernel_size: int, **_: Any
    ) -> torch.Tensor:
        return peers.Unfold.subtraction2(x, x, kernel_size)


class _ByUnfold(Relation):
    """A relation of san in plain PyTorch."""

    def __init__(self, relation: Relation) -> None:
        super().__init__()
        self._relation = relation

    def channels(self, features: int, num_taps: int) -> int:
        return self._relation.channels(features, num_taps)

    def forward(
        self, phi: torch.Tensor, psi: torch.Tensor, kernel_size: int
    ) -> torch.Tensor:
        relation = self._relation
        if isinstance(relation, DotProduct):
            return peers.Unfold.correlation(
                phi, psi, relation.num_groups, kernel_size
            )
        return _WAYS[type(relation)](phi, psi, kernel_size)


@contextlib.contextmanager
def by_unfold(model: nn.Module) -> Iterator[None]:
    """Has the blocks of a model compute in plain PyTorch for a while."""
    blocks = [m for m in model.modules() if isinstance(m, Attention)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(san.use_attention_backend("unfused"))
        stack.enter_context(mock.patch.object(window_ops, "ops", _Windows))
        for block in blocks:
            plain = _ByUnfold(block.relation)
            stack.enter_context(mock.patch.object(block, "relation", plain))
        yield
