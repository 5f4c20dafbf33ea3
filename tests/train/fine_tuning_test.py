"""Training that begins with trained weights, on digits and as a user does."""

import copy
import shutil

import pytest
import torch

import san
from san import safetensors_file
from san.data.digits import write_digits
from san.networks import pretrained
from san.recipe import Recipe
from tests.train import jobs
from train import initial_weights, optimization, stages
from train.interruption import InterruptionError

HELD_BACK = ["7", "8", "9"]

DIGITS = """
create_model.name = "table4/patch/star"
RowSize.num_blocks = (1, 1)
RowSize.widths = (32, 64)
Data.image_size = 16
Data.resize_size = 16
Data.flip = False
Data.min_crop_area = 0.8
Data.num_threads = 1
Recipe.batch_size = 32
Recipe.learning_rate = 0.05
"""


def configure(folder, *params):
    (folder / "digits_here.gin").write_text(DIGITS)
    jobs.config.parse([str(folder / "digits_here.gin")], params)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """All digits, and the folder and the training of those not held back."""
    folder = tmp_path_factory.mktemp("digits")
    every = folder / "all"
    shutil.copytree(write_digits(str(folder)), every)
    some = folder / "some"
    shutil.copytree(every, some, ignore=shutil.ignore_patterns(*HELD_BACK))
    configure(folder, "Recipe.epochs = 4")
    return every, jobs.train(folder / "first", some)


def test_classes_that_were_held_back_are_learnt_sooner(digits, tmp_path):
    every, first = digits
    found = {}
    for name, params in {
        "fresh": [],
        "tuned": [
            f"Recipe.initial_checkpoint = '{first.best}'",
            "Recipe.depth_decay = 0.2",
        ],
        "head": [
            f"Recipe.initial_checkpoint = '{first.best}'",
            "Recipe.frozen_stages = 2",
        ],
    }.items():
        configure(tmp_path, "Recipe.epochs = 1", *params)
        work = jobs.train(tmp_path / name, every)
        checkpoint = torch.load(work.last, weights_only=True)
        found[name] = checkpoint["top1_val"]
        assert len(checkpoint["classes"]) == 10
    assert found["tuned"] > found["fresh"] + 20, found
    assert found["head"] > 30, found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Images of three classes, and a checkpoint of a network for them."""
    folder = tmp_path_factory.mktemp("small")
    images = jobs.write_images(folder / "images")
    work = jobs.train_with(folder / "work", images, "Recipe.epochs = 1")
    return images, work


def names_of(model, modules):
    chosen = {id(m) for module in modules for m in module.modules()}
    return {
        f"{name}.{entry}"
        for name, module in model.named_modules()
        if id(module) in chosen
        for entry in (*module._parameters, *module._buffers)
        if f"{name}.{entry}" in model.state_dict()
    }


@pytest.mark.parametrize(
    "params",
    [
        [],
        ["Recipe.ema_decay = 0.9"],
        ["Recipe.compile = True"],
        ["Recipe.optimizer = 'adamw'", "Recipe.decayed = 'matrices'"],
        ["Recipe.depth_decay = 0.5", "Recipe.clip_gradient_norm = 0.01"],
    ],
)
def test_frozen_stages_stay_to_the_bit(small, tmp_path, params):
    images, work = small
    before = jobs.weights(work)
    tuned = jobs.train_with(
        tmp_path / "work",
        images,
        f"Recipe.initial_checkpoint = '{work.last}'",
        "Recipe.frozen_stages = 1",
        "Recipe.epochs = 1",
        *params,
    )
    checkpoint = torch.load(tuned.last, weights_only=True)
    model = san.create_model(num_classes=3)
    frozen = names_of(model, stages.stages_of(model)[0])
    assert {"conv_in.weight", "bn0.running_var"} <= frozen
    assert "layer0.0.sam.conv_w.0.num_batches_tracked" in frozen
    states = [checkpoint["state_dict"]]
    states += [checkpoint[n] for n in ["trained_state_dict"] if n in checkpoint]
    for after in states:
        changed = {n for n in before if not torch.equal(before[n], after[n])}
        assert changed == before.keys() - frozen
    in_optimizer = sum(
        len(g["params"]) for g in checkpoint["optimizer"]["param_groups"]
    )
    trained = [n for n, _ in model.named_parameters() if n not in frozen]
    assert in_optimizer == len(trained)


def test_two_processes_freeze_the_same(small, tmp_path):
    images, work = small
    jobs.write_settings(tmp_path)
    code, _, stderr = jobs.run(
        "train.main",
        f"--gin_file={tmp_path}/small.gin",
        f"--data_dir={images}",
        f"--workdir={tmp_path}/two",
        "--num_processes=2",
        f"--gin_param=Recipe.initial_checkpoint='{work.last}'",
        "--gin_param=Recipe.frozen_stages=1",
        "--epochs=1",
    )
    assert code == 0, stderr
    assert "frozen: 1 of 2 stages, " in stderr
    jobs.train_with(
        tmp_path / "one",
        images,
        f"Recipe.initial_checkpoint='{work.last}'",
        "Recipe.frozen_stages = 1",
        "Recipe.epochs = 1",
    )
    two, one = (
        torch.load(
            tmp_path / name / "checkpoints" / "last.pth", weights_only=True
        )["state_dict"]
        for name in ("two", "one")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


def test_stopped_and_resumed_without_the_file_it_is_the_same(
    small, tmp_path, capfd
):
    images, work = small
    initial = tmp_path / "initial.pth"
    shutil.copy(work.last, initial)
    settings = (
        f"Recipe.initial_checkpoint = '{initial}'",
        "Recipe.frozen_stages = 1",
        "Recipe.depth_decay = 0.7",
        "Recipe.ema_decay = 0.5",
    )
    whole = jobs.train_with(tmp_path / "whole", images, *settings)
    with jobs.interruption(3), pytest.raises(InterruptionError):
        jobs.train_with(tmp_path / "work", images, *settings)
    initial.unlink()
    resumed = jobs.train_with(tmp_path / "work", images, *settings)
    jobs.assert_same_bits(jobs.weights(whole), jobs.weights(resumed))
    ends = [
        torch.load(folder.last, weights_only=True)["origin"]
        for folder in (whole, resumed)
    ]
    assert ends[0] == ends[1] and ends[0]["file"] == "initial.pth"
    assert len(ends[0]["sha256"]) == 64
    capfd.readouterr()
    other = (f"Recipe.initial_checkpoint = '{work.best}'", *settings[1:])
    jobs.train_with(tmp_path / "work", images, *other, "Recipe.epochs = 3")
    stderr = capfd.readouterr().err
    assert (
        "warning: Recipe.initial_checkpoint has no effect: training" in stderr
    )
    assert "initial_checkpoint was" not in stderr
    with pytest.raises(
        ValueError, match="frozen_stages must be the checkpoint"
    ):
        jobs.train_with(
            tmp_path / "work", images, *other, "Recipe.frozen_stages = 0"
        )
    with pytest.raises(FileNotFoundError, match=r"initial\.pth"):
        jobs.train_with(tmp_path / "work", images, *settings, resume=False)


def test_rates_fall_by_stages_from_the_head(tmp_path):
    model = san.create_model("resnet26", num_classes=3)
    for decayed, kinds in (("all", 1), ("matrices", 2)):
        recipe = Recipe(depth_decay=0.5, decayed=decayed)
        optimizer = optimization.create_optimizer(model, recipe)
        optimization.set_hyperparameters(optimizer, recipe, 0.8)
        rates = {
            parameter: group["lr"]
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        assert len(rates) == len(list(model.parameters()))
        assert len(optimizer.param_groups) == 5 * kinds
        expected = {"fc": 0.8, "layer4": 0.4, "layer3": 0.2, "layer2": 0.1}
        for name, parameter in model.named_parameters():
            top = name.split(".")[0]
            assert rates[parameter] == pytest.approx(expected.get(top, 0.05))
    decays = {g["weight_decay"] for g in optimizer.param_groups[::2]}
    assert decays == {recipe.weight_decay}
    assert {g["weight_decay"] for g in optimizer.param_groups[1::2]} == {0.0}


def test_a_changed_decay_holds_after_resuming(small, tmp_path):
    images, _ = small
    jobs.train_with(
        tmp_path / "work",
        images,
        "Recipe.depth_decay = 0.5",
        "Recipe.epochs = 1",
    )
    work = jobs.train_with(
        tmp_path / "work", images, "Recipe.depth_decay = 0.25"
    )
    groups = torch.load(work.last, weights_only=True)["optimizer"][
        "param_groups"
    ]
    rates = [group["lr"] for group in groups]
    assert rates == pytest.approx([rates[0], rates[0] / 4, rates[0] / 16])
    with pytest.raises(ValueError, match="depth_decay, where one of both is 1"):
        jobs.train_with(tmp_path / "work", images, "Recipe.epochs = 3")


def initial(path, classes, num_classes=3, **facts):
    jobs.configure(path.parent)
    torch.manual_seed(1)
    model = san.create_model(num_classes=num_classes)
    facts |= {"classes": classes} if classes else {}
    torch.save({"state_dict": model.state_dict(), **facts}, path)
    return model.state_dict()


@pytest.mark.parametrize(
    ("classes", "head", "is_kept"),
    [
        (["a", "b", "c"], "by_classes", True),
        (["a", "b", "d"], "by_classes", False),
        (["b", "a", "c"], "by_classes", False),
        (["a", "b", "c"], "new", False),
        (None, "kept", True),
        (None, "new", False),
        (["x", "y", "z"], "kept", True),
    ],
)
def test_what_becomes_of_a_head_of_as_many_classes(
    tmp_path, classes, head, is_kept
):
    before = initial(tmp_path / "m.pth", classes)
    torch.manual_seed(2)
    model = san.create_model(num_classes=3)
    recipe = Recipe(initial_checkpoint=str(tmp_path / "m.pth"), head=head)
    origin = initial_weights.load(model, recipe, ["a", "b", "c"])
    after = model.state_dict()
    assert torch.equal(after["fc.weight"], before["fc.weight"]) == is_kept
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])
    assert bool(origin["left_out"]) != is_kept


def test_weights_of_a_safetensors_file(small, tmp_path):
    images, work = small
    content = safetensors_file.pack(jobs.weights(work), {})
    (tmp_path / "m.safetensors").write_bytes(content)
    settings = (
        f"Recipe.initial_checkpoint = '{tmp_path}/m.safetensors'",
        "Recipe.head = 'kept'",
    )
    tuned = jobs.train_with(tmp_path / "a", images, *settings)
    names = copy.copy(settings)[:1]
    same = jobs.train_with(
        tmp_path / "b", images, f"Recipe.initial_checkpoint = '{work.last}'"
    )
    jobs.assert_same_bits(jobs.weights(tuned), jobs.weights(same))
    with pytest.raises(
        ValueError, match=r"must name its classes, as there are 3"
    ):
        jobs.train_with(tmp_path / "c", images, *names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["Recipe.initial_checkpoint = '/no/file'"],
            "must be a checkpoint file",
        ),
        (["Recipe.initial_checkpoint = 3"], "be None or the name of a file"),
        (["Recipe.frozen_stages = 1"], "be 0 without initial_checkpoint"),
        (["Recipe.depth_decay = 0"], "be above 0 and at most 1"),
        (["Recipe.head = 'old'"], "be one of 'by_classes', 'new', 'kept'"),
        (
            ["GOOD", "Recipe.frozen_stages = 3"],
            "at most the network's, 2, got 3",
        ),
        (
            ["GOOD", "SAN.widths = (32, 64)"],
            r"widths \[32, 32\] instead of \[32, 64\]",
        ),
        (
            ["GOOD", "SAN.kernel_sizes = (3, 5)"],
            r"kernel_sizes \[3, 3\] instead",
        ),
        (["FIVE", "Recipe.head = 'kept'"], "got 5 classes in"),
    ],
)
def test_mistakes(small, tmp_path, settings, message):
    images, work = small
    initial(tmp_path / "five.pth", None, 5)
    files = {"GOOD": work.last, "FIVE": tmp_path / "five.pth"}
    settings = [
        f"Recipe.initial_checkpoint = '{files[s]}'" if s in files else s
        for s in settings
    ]
    with pytest.raises((ValueError, OSError), match=message):
        jobs.train_with(tmp_path / "work", images, *settings)
    assert not (tmp_path / "work" / "checkpoints" / "last.pth").exists()


def test_stages_of_others():
    jobs.config.parse([])
    model = torch.nn.Linear(3, 3)
    assert stages.frozen(model, Recipe()) == []
    assert set(stages.distances(model, Recipe()).values()) == {0}
    with pytest.raises(
        ValueError, match="of networks other than SAN and ResNet"
    ):
        stages.distances(model, Recipe(depth_decay=0.5))
    for name in ("san10_pair", "resnet50"):
        model = san.create_model(name, num_classes=2)
        modules = [m for s in stages.stages_of(model) for m in s]
        covered = names_of(model, modules)
        assert model.state_dict().keys() - covered == {"fc.weight", "fc.bias"}
    assert pretrained.num_classes_of(model.state_dict()) == 2


def test_a_setting_without_effect_is_a_warning(small, tmp_path, capfd):
    images, _ = small
    jobs.train_with(tmp_path / "w", images, "Recipe.head = 'new'")
    assert "Recipe.head has no effect: no initial_ch" in capfd.readouterr().err
