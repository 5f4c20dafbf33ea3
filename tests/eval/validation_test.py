import pytest
import torch
from torch import nn

from eval import validation

CPU = torch.device("cpu")


class Scores(nn.Module):
    """A network whose logits are its input, and that must be in eval mode."""

    def forward(self, x):
        assert not self.training
        return x


def validate(logits, labels, batch_size=2):
    """Validates given logits in batches."""
    logits, labels = torch.tensor(logits), torch.tensor(labels)
    batches = zip(
        logits.split(batch_size), labels.split(batch_size), strict=True
    )
    model = Scores()
    model.train()
    result = validation.validate(model, batches, logits.shape[1], CPU)
    assert model.training
    return result


def test_two_classes_by_hand():
    result = validate([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]], [0, 1, 1])
    assert result.images == [1, 2]
    assert result.correct1 == [1, 1]
    assert result.correct5 == [1, 2]
    assert result.num_images == 3
    assert result.top1 == pytest.approx(200 / 3)
    assert result.top5 == 100.0
    losses = [torch.tensor(x).exp().add(1).log() for x in (-1.0, -3.0, 1.0)]
    assert result.loss == pytest.approx(float(sum(losses)) / 3)


def test_the_sixth_is_not_among_the_first_five():
    logits = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]] * 7
    result = validate(logits, [0, 1, 2, 3, 4, 5, 6], batch_size=3)
    assert result.correct1 == [1, 0, 0, 0, 0, 0, 0]
    assert result.correct5 == [1, 1, 1, 1, 1, 0, 0]
    assert result.top5 == pytest.approx(500 / 7)


def test_one_class():
    result = validate([[1.0], [2.0]], [0, 0])
    assert (result.top1, result.top5, result.loss) == (100.0, 100.0, 0.0)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 10])
def test_batches_do_not_matter(batch_size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 8, generator=generator).tolist()
    labels = [0, 1, 2, 3, 4, 5, 6, 7, 7]
    found = validate(logits, labels, batch_size)
    expected = validate(logits, labels, 3)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.correct1 == expected.correct1
    assert found.correct5 == expected.correct5


def test_no_images():
    with pytest.raises(
        ValueError, match=r"^validate: batches must hold images"
    ):
        validation.validate(Scores(), [], 3, CPU)


def test_bfloat16_runs_under_autocast():
    model = nn.Linear(4, 3)
    seen = []
    model.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    batches = [(torch.randn(2, 4), torch.tensor([0, 1]))]
    validation.validate(model, batches, 3, CPU, "bfloat16")
    validation.validate(model, batches, 3, CPU, "float32")
    assert seen == [torch.bfloat16, torch.float32]
