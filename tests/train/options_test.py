"""The recipe's options in real runs: exact resume, any number of processes."""

import json
from unittest import mock

import pytest
import torch

import san
from san import data
from san.jobs import config
from san.networks.stochastic_depth import residual_blocks
from tests.train import jobs
from tests.train.jobs import train_with as train
from train.interruption import InterruptionError

# 27 images: 4 steps of 6 an epoch. Drawn: images, pairs, boxes, blocks.
EVERYTHING = [
    "Recipe.optimizer = 'adamw'",
    "Recipe.learning_rate = 0.002",
    "Recipe.decayed = 'matrices'",
    "Recipe.clip_gradient_norm = 0.5",
    "Recipe.schedule_interval = 'step'",
    "Recipe.warmup_epochs = 1",
    "Recipe.ema_decay = 0.9",
    "Recipe.loss = 'binary_cross_entropy'",
    "Recipe.mixup_alpha = 0.3",
    "Recipe.cutmix_alpha = 1.0",
    "Recipe.stochastic_depth = 0.5",
    "Data.rand_augment_ops = 2",
    "Data.random_erasing = 0.5",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


def checkpoint(folder):
    return torch.load(folder.last, weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """An uninterrupted run with everything."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return checkpoint(train(folder, images, *EVERYTHING))


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_resumed_is_uninterrupted(tmp_path, images, whole, step):
    folder = tmp_path / "run"
    with jobs.interruption(step), pytest.raises(InterruptionError):
        train(folder, images, *EVERYTHING)
    resumed = checkpoint(train(folder, images, *EVERYTHING))
    for name in ("state_dict", "trained_state_dict"):
        jobs.assert_same_bits(whole[name], resumed[name])
    assert resumed["num_averaged"] == whole["num_averaged"] == 8
    assert whole["state"]["latest"] == resumed["state"]["latest"]


@pytest.mark.parametrize(
    "param",
    [
        *(param for param in EVERYTHING if "_alpha" not in param),
        "Recipe.mixup_alpha = 0.3",
        "Recipe.cutmix_alpha = 1.0",
        "Recipe.reference_batch_size = 3",
    ],
)
def test_each_option_changes_what_is_trained(tmp_path, images, plain, param):
    settings = [param, "Recipe.schedule = 'cosine'"]
    if "warmup" in param:
        settings.append("Recipe.epochs = 2")
    folder = train(tmp_path / "run", images, *settings)
    found = checkpoint(folder)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert not torch.equal(found["fc.weight"], plain["fc.weight"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory, images):
    """The weights of a run without options."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return checkpoint(train(folder, images))["state_dict"]


def test_compiled_it_is_the_same_network(tmp_path, images):
    small = "create_model.name = @without_norms"
    plain = train(tmp_path / "plain", images, small)
    compile_it = "Recipe.compile = True"
    with mock.patch.object(torch, "compile", wraps=torch.compile) as compiler:
        compiled = train(tmp_path / "compiled", images, small, compile_it)
    assert compiler.call_count == 1
    one, other = (checkpoint(f)["state_dict"] for f in (plain, compiled))
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_the_average_is_validated_and_evaluated(tmp_path, images):
    settings = ["Recipe.ema_decay = 0.9", "Recipe.learning_rate = 0.1"]
    folder = train(tmp_path / "run", images, *settings)
    saved = checkpoint(folder)
    assert not torch.equal(
        saved["state_dict"]["fc.weight"],
        saved["trained_state_dict"]["fc.weight"],
    )
    figures = tmp_path / "figures.json"
    code, _, stderr = jobs.run(
        "eval.imagenet",
        f"--workdir={folder.path}",
        f"--json={figures}",
    )
    assert code == 0, stderr
    found = json.loads(figures.read_text())
    for name in ("loss", "top1", "num_images"):
        assert found[name] == saved["state"]["best"][name]


def test_an_average_may_begin_and_end_in_mid_run(tmp_path, images, capsys):
    average = "Recipe.ema_decay = 0.9"
    train(tmp_path / "run", images, "Recipe.epochs = 1")
    folder = train(tmp_path / "run", images, "Recipe.epochs = 2", average)
    said = capsys.readouterr().err
    assert "warning: Recipe.ema_decay was 0.0 so far and is 0.9 now" in said
    assert checkpoint(folder)["num_averaged"] == 4
    folder = train(tmp_path / "run", images, "Recipe.epochs = 3")
    assert "trained_state_dict" not in checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("optimizer", "sgd", "adamw"), ("decayed", "all", "matrices")],
)
def test_another_optimizer_cannot_resume(tmp_path, images, name, old, new):
    train(tmp_path / "run", images, "Recipe.epochs = 1")
    expected = f"Recipe.{name} must be the checkpoint's, {old}, got {new}"
    with pytest.raises(ValueError, match=expected):
        train(tmp_path / "run", images, f"Recipe.{name} = '{new}'")


def test_what_has_no_effect_is_said(tmp_path, images, capsys):
    train(
        tmp_path / "run",
        images,
        "Recipe.optimizer = 'adamw'",
        "Recipe.learning_rate = 0.002",
        "Recipe.momentum = 0.9",
        "Recipe.betas = (0.9, 0.99)",
        "Recipe.step_epochs = (1,)",
        "Data.rand_augment_magnitude = 3",
    )
    said = capsys.readouterr().err
    for warning in (
        "Recipe.momentum has no effect: AdamW has none",
        "Recipe.step_epochs has no effect: the schedule is 'cosine'",
        "Data.rand_augment_magnitude has no effect: rand_augment_ops is 0",
    ):
        assert f"warning: {warning}\n" in said
    assert said.count("no effect") == 3


def test_what_nothing_reads_is_said(tmp_path, images, capsys):
    """A network that is not the configured one; a scope that nobody has."""
    arguments = [
        "Recipe.epochs = 1",
        "PairwiseAttention.relation = 'hadamard'",
        "ResNet.widths = (3,)",
        "foo/Recipe.learning_rate = 0.5",
        "one/PatchwiseAttention.num_layers = 1",
    ]
    train(tmp_path / "run", images, *arguments)
    said = capsys.readouterr().err
    for name in (
        "PairwiseAttention.relation",
        "ResNet.widths",
        "foo/Recipe.learning_rate",
        "one/PatchwiseAttention.num_layers",
    ):
        assert f"warning: {name} has no effect: nothing in this run" in said
    assert said.count("no effect") == 4
    used = "SAN.attention = @one/PatchwiseAttention"
    train(tmp_path / "used", images, used, *arguments[:1], *arguments[4:])
    assert "no effect" not in capsys.readouterr().err


def test_steps_after_the_last_epoch_are_said(tmp_path, images, capsys):
    train(tmp_path / "run", images, "Recipe.schedule = 'step'")
    assert (
        "Recipe.schedule has no effect: no step_epochs come before epochs, 2"
        in capsys.readouterr().err
    )


def test_two_processes_draw_the_same(tmp_path, images):
    """And give the weights of one, up to rounding."""
    settings = [
        f"--gin_param={param}"
        for param in (*EVERYTHING, "Recipe.ema_decay = 0.5")
        if "Recipe.learning_rate" not in param
    ]
    settings += ["--gin_param=Recipe.learning_rate = 1e-4", "--batch_size=8"]
    (one, two), _ = jobs.train_one_and_two(tmp_path, images, *settings)
    for name, expected in one["trained_state_dict"].items():
        torch.testing.assert_close(
            two["trained_state_dict"][name],
            expected,
            rtol=1e-3,
            atol=1e-4,
            msg=name,
        )
    assert two["state"]["latest"]["loss"] == pytest.approx(
        one["state"]["latest"]["loss"], rel=1e-3
    )


@pytest.mark.parametrize("name", ["san10_pair", "resnet26"])
def test_blocks_are_left_out_with_their_rates(name):
    config.parse([])
    model = san.create_model(name, num_classes=2)
    san.set_stochastic_depth(model, 0.5)
    blocks = residual_blocks(model)
    rates = [block.drop_rate for block in blocks]
    last = len(blocks) - 1
    assert rates == pytest.approx([0.5 * i / last for i in range(last + 1)])
    block = blocks[-2]
    block.drop_rate = 0.5
    images = torch.randn(4, *_input_shape(name, block)).relu()
    block.train()
    block.drop_draws = torch.tensor([0.0, 0.49, 0.5, 0.99])
    found = block(images)
    block.drop_rate = 0.0
    whole = block(images)
    assert torch.equal(found[:2], images[:2])
    if name == "san10_pair":  # The sum is not rectified.
        torch.testing.assert_close(
            found[2:] - images[2:],
            2 * (whole - images)[2:],
            atol=1e-5,
            rtol=1e-4,
        )
    block.drop_rate = 0.5
    block.eval()
    expected = block(images)
    block.drop_rate = 0.0
    assert torch.equal(expected, block(images))


def _input_shape(name, block):
    outputs = block.conv if name == "san10_pair" else block.conv3
    return outputs.out_channels, 3, 4


def test_left_out_by_torch_where_nobody_draws():
    model = san.ResNet((1, 1, 1, 1), num_classes=2, widths=(8, 8, 8, 8))
    san.set_stochastic_depth(model, 0.9)
    images = torch.randn(64, 3, 32, 32)
    torch.manual_seed(0)
    one = model(images)
    torch.manual_seed(1)
    assert not torch.equal(one, model(images))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and below 1"):
        san.set_stochastic_depth(torch.nn.Linear(2, 2), rate)


def test_a_network_without_bottlenecks(tmp_path, images):
    san.set_stochastic_depth(torch.nn.Linear(2, 2), 0.0)
    with pytest.raises(
        ValueError, match=r"two bottlenecks .* a Sequential with"
    ):
        train(
            tmp_path / "run",
            images,
            "create_model.name = @without_norms",
            "Recipe.stochastic_depth = 0.1",
        )


def test_augmented_batches_are_the_same_for_any_processes(images):
    settings = data.Data(
        image_size=12, resize_size=14, rand_augment_ops=2, random_erasing=0.5
    )
    index = data.load_split(str(images), "train")

    def batches(rank, world_size, first_step=0):
        loader = data.TrainingLoader(
            index,
            settings,
            batch_size=7,
            seed=3,
            rank=rank,
            world_size=world_size,
            device="cpu",
        )
        return [pixels for pixels, _ in loader.epoch(1, first_step)]

    whole = batches(0, 1)
    for step, parts in enumerate(
        zip(batches(0, 2), batches(1, 2), strict=True)
    ):
        assert torch.equal(torch.cat(parts), whole[step])
    resumed = batches(0, 1, first_step=2)
    assert torch.equal(resumed[0], whole[2])
