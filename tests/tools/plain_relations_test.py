"""What the benchmark compares relations with is what they compute."""

import gin
import pytest
import torch

import san
from san.attention.relations import PAIRWISE, PATCHWISE
from tools.benchmark import plain_relations, plain_rows, targets


@pytest.mark.parametrize(
    ("known", "ways"),
    [
        (PAIRWISE, plain_relations.PAIRWISE_BY_UNFOLD),
        (PAIRWISE, plain_relations.PAIRWISE_BY_TAP_LOOP),
        (PATCHWISE, plain_relations.PATCHWISE_BY_UNFOLD),
        (PATCHWISE, plain_relations.PATCHWISE_BY_TAP_LOOP),
    ],
)
def test_peers_compare(known, ways):
    phi, psi = torch.randn(2, 2, 3, 5, 9)
    for name, way in ways.items():
        with san.use_attention_backend("reference"):
            expected = known[name]()(phi, psi, 3)
        torch.testing.assert_close(way(phi, psi, 3), expected)


@pytest.fixture
def small_rows():
    """Rows whose networks are small."""
    gin.bind_parameter("RowSize.num_blocks", (1, 1))
    gin.bind_parameter("RowSize.widths", (64, 256))
    rows = [row for row in san.paper_rows() if row.table != "3"]
    yield [row.row for row in rows if row.kind != "conv"]
    gin.clear_config()


def test_the_unfused_rows_are_all_that_are_not_fused(small_rows):
    unfused = set()
    for row in small_rows:
        with san.use_attention_backend("fused"):
            why = san.why_unfused(_small(row))
        if any(".sam" in line for line in why):
            unfused.add(row)
    assert unfused == set(targets.UNFUSED_ROWS)


@pytest.mark.parametrize("row", targets.UNFUSED_ROWS)
def test_a_plain_row_computes_the_same(row, small_rows):
    model = _small(row)
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    with plain_rows.by_unfold(model):
        got = model(images)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(model(images), expected)


def _small(row):
    torch.manual_seed(0)
    return san.create_model(row, num_classes=5)
