import dataclasses

import pytest

from san.jobs import config
from san.recipe import Recipe


def test_defaults_are_the_published_recipe():
    config.parse([])
    assert Recipe() == Recipe(
        epochs=100,
        batch_size=256,
        learning_rate=0.1,
        schedule="cosine",
        step_epochs=(30, 60, 90),
        step_factor=0.1,
        warmup_epochs=0,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.1,
        mixup_alpha=0.0,
        seed=0,
        precision="float32",
        sync_batch_norm=True,
        optimizer="sgd",
        decayed="all",
        schedule_interval="epoch",
        loss="cross_entropy",
        reference_batch_size=None,
        clip_gradient_norm=0.0,
        ema_decay=0.0,
        cutmix_alpha=0.0,
        stochastic_depth=0.0,
        compile=False,
    )


def test_gin_sets_every_value():
    config.parse([], ["Recipe.epochs = 3", "Recipe.schedule = 'step'"])
    assert Recipe().epochs == 3
    assert Recipe().schedule == "step"
    config.parse([])


def test_a_recipe_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "integer of at least 1, got 0"),
        ("epochs", 2.5, "integer of at least 1, got 2.5"),
        ("epochs", True, "integer of at least 1, got True"),
        ("batch_size", 0, "integer of at least 1"),
        ("batch_size", "many", "integer of at least 1, got 'many'"),
        ("log_every_steps", 0, "integer of at least 1"),
        ("save_every_steps", -1, "integer of at least 0"),
        ("keep_checkpoints", 0, "integer of at least 1, got 0"),
        ("seed", -1, "integer of at least 0"),
        ("seed", 2**63, r"below 2\*\*63"),
        ("warmup_epochs", -1, "integer of at least 0"),
        ("warmup_epochs", 100, r"below epochs \(100; .*=N\), got 100"),
        ("learning_rate", 0, "number and be above 0"),
        ("learning_rate", float("nan"), "number and be above 0, got nan"),
        ("learning_rate", "0.1", "number and be above 0, got '0.1'"),
        ("momentum", 1.0, "at least 0 and below 1"),
        ("label_smoothing", -0.1, "at least 0 and below 1"),
        ("weight_decay", -1, "at least 0"),
        ("mixup_alpha", -1, "at least 0"),
        ("step_factor", 0, "above 0 and at most 1"),
        ("step_epochs", (60, 30), "rising epochs"),
        ("step_epochs", (0, 30), "rising epochs"),
        ("step_epochs", 30, "rising epochs"),
        ("schedule", "linear", "one of 'cosine', 'step', got 'linear'"),
        ("precision", "float16", "one of 'float32', 'bfloat16'"),
        ("sync_batch_norm", 1, "True or False, got 1"),
        ("compile", "yes", "True or False, got 'yes'"),
        ("optimizer", "lamb", "one of 'sgd', 'adamw', got 'lamb'"),
        ("schedule_interval", "batch", "one of 'epoch', 'step'"),
        ("decayed", "weights", "one of 'all', 'matrices'"),
        ("loss", "bce", "one of 'cross_entropy', 'binary_cross_entropy'"),
        ("betas", 0.9, "two numbers of at least 0 and below 1, got 0.9"),
        ("betas", (0.9, 1.0), "two numbers of at least 0 and below 1"),
        ("reference_batch_size", 0, "integer of at least 1, got 0"),
        ("clip_gradient_norm", -1.0, "at least 0"),
        ("ema_decay", 1.0, "at least 0 and below 1"),
        ("cutmix_alpha", float("inf"), "number and be at least 0, got inf"),
        ("stochastic_depth", 1, "at least 0 and below 1"),
    ],
)
def test_errors_name_the_value_and_the_rule(name, value, rule):
    with pytest.raises(ValueError, match=rf"^Recipe: {name} must be .*{rule}"):
        Recipe(**{name: value})
