"""Networks with the weights of files, as a user makes them."""

import copy
import warnings

import gin
import pytest
import safetensors.torch
import torch

import san
from san.networks import row_networks
from san.networks.architecture import architecture


@pytest.fixture(autouse=True)
def _small_rows():
    """Rows of the paper as networks of three small stages."""
    with gin.unlock_config():
        gin.parse_config(
            "RowSize.num_blocks = (1, 0, 1)\nRowSize.widths = (32, 32, 64)\n"
            "RowSize.conv_widths = (8, 8, 8, 16)\n"
            "RowSize.num_conv_blocks = (1, 1, 1, 1)"
        )
        yield
        gin.clear_config()


def trained(name="table4/pair/subtraction", num_classes=5, **arguments):
    """A network that is not as fresh ones are."""
    torch.manual_seed(7)
    model = san.create_model(name, num_classes, **arguments)
    channels = arguments.get("in_channels", 3)
    with torch.no_grad():
        model(torch.randn(2, channels, 32, 32))  # Statistics of its own.
    return model.eval()


def saved(model, path, **facts):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save({"state_dict": model.state_dict(), **facts}, path)
    return path


def create(name, path, *arguments, **keywords):
    """A network that was made without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = san.create_model(name, *arguments, checkpoint=path, **keywords)
    assert model.training
    return model.eval()


IMAGES = torch.linspace(-1, 1, 2 * 3 * 33 * 40).reshape(2, 3, 33, 40)


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
@pytest.mark.parametrize(
    "row", ["table4/pair/subtraction", "table4/patch/star", "table7/conv/3"]
)
@torch.no_grad()
def test_classes_are_those_of_the_checkpoint(tmp_path, row, name):
    model = trained(row)
    path = saved(model, tmp_path / name)
    for made in (create(row, path), create(row, str(path), 5)):
        assert torch.equal(made(IMAGES), model(IMAGES))


def test_the_head_of_other_classes_is_left_out(tmp_path):
    model = trained()
    path = saved(model, tmp_path / "m.pth")
    with pytest.warns(UserWarning) as said:
        made = san.create_model("table4/pair/subtraction", 3, path)
    (warning,) = said
    assert str(warning.message) == (
        f"create_model: of {path} fc.weight [5, 64], fc.bias [5] was left out;"
        " new and untrained: fc.weight [3, 64], fc.bias [3]"
    )
    assert warning.filename == __file__
    own, its = made.state_dict(), model.state_dict()
    assert own["fc.weight"].shape == (3, 64) and own["fc.weight"].any()
    for name in own.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(own[name], its[name]), name


def test_a_file_without_a_head(tmp_path):
    model = trained()
    del model.fc
    path = saved(model, tmp_path / "m.pth")
    with pytest.warns(UserWarning, match=r"no head came; new and untrained"):
        made = san.create_model("table4/pair/subtraction", 3, path)
    assert torch.equal(made.conv_in.weight, model.conv_in.weight)


OTHERS = [
    ("table4/pair/subtraction", "table4/patch/star", "fit table4/patch/star\n"),
    ("table4/patch/star", "table7/conv/3", "fit table7/conv/3\n"),
    ("table7/patch/3", "table7/patch/5", "fit table7/patch/5\n"),
]


@pytest.mark.parametrize(("asked", "given", "message"), OTHERS)
def test_another_network_is_named(tmp_path, asked, given, message):
    path = saved(trained(given), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        san.create_model(asked, checkpoint=path)
    assert str(error.value).startswith("create_model: load_state_dict: entries")


def test_published_networks_are_told_apart(tmp_path):
    gin.clear_config()
    with torch.device("meta"):
        names = san.create_model("san15_patch").state_dict()
    weights = {f"module.{n}": torch.zeros(t.shape) for n, t in names.items()}
    torch.save({"state_dict": weights}, tmp_path / "m.pth")
    for asked in ("san10_patch", "san15_pair", "resnet50"):
        with pytest.raises(ValueError, match="the weights fit san15_patch\n"):
            san.create_model(asked, checkpoint=tmp_path / "m.pth")


def test_a_name_is_missing(tmp_path):
    path = saved(trained("table7/patch/5"), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="fit table7/patch/5\n") as error:
        san.create_model(checkpoint=path)
    assert str(error.value).startswith("create_model: name must be given, in")
    with pytest.raises(ValueError, match="got none\n"):
        san.create_model()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("table4/pair/summation", "relation Subtraction instead of Summation"),
        ("table7/pair/3", r"kernel_sizes \[3, None, 7\] instead of \[3, None,"),
        ("table8/pair/absolute", "position RelativePosition instead of Abs"),
    ],
)
def test_what_the_shapes_of_weights_do_not_say(tmp_path, asked, message):
    model = trained()
    facts = {"architecture": architecture(model)}
    path = saved(model, tmp_path / "m.pth", **facts)
    create("table6/pair/distinct", path)  # The same by another name.
    with pytest.raises(ValueError, match=message) as error:
        san.create_model(asked, checkpoint=path)
    assert "the weights fit table4/pair/subtraction or" in str(error.value)


def test_rows_of_the_same_description_are_the_same():
    """Of full size, with their weights' shapes."""
    gin.clear_config()
    found = {}
    for row in san.paper_rows():
        with torch.device("meta"):
            model = san.create_model(row.row)
        shapes = [tuple(t.shape) for t in model.state_dict().values()]
        network = row_networks.RowNetwork.of(row.row)
        key = str((architecture(model), shapes))
        assert found.setdefault(key, network) == network
    assert len(found) == len(set(found.values()))


@pytest.mark.parametrize("channels", [1, 4])
@torch.no_grad()
def test_images_of_other_channels(tmp_path, channels):
    row = "table4/pair/subtraction"
    model = trained(row, in_channels=channels)
    images = torch.randn(2, channels, 32, 35)
    assert not san.why_unfused(model)
    path = saved(model, tmp_path / "m.pth")
    made = create(row, path, in_channels=channels)
    assert torch.equal(made(images), model(images))
    for asked in ({}, {"in_channels": 2}):
        with pytest.raises(
            ValueError, match=rf"images have {channels} channels: give in_chan"
        ):
            san.create_model(row, checkpoint=path, **asked)
    rgb = saved(trained(row), tmp_path / "rgb.pth")
    with pytest.raises(ValueError, match="images have 3 channels"):
        san.create_model(row, checkpoint=rgb, in_channels=channels)
    resnet = trained("table7/conv/3", in_channels=channels)
    assert resnet(images).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a positive integer, got 0"),
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"num_classes": True}, "must be a positive integer, got True"),
        (
            {"features": True, "num_classes": 3},
            "num_classes must not be given beside features",
        ),
        ({"name": "resnet", "checkpoint": "no.pth"}, "name must be one of"),
    ],
)
def test_arguments_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        san.create_model(**{"name": "san10_pair", **arguments})


def test_no_file():
    gin.clear_config()
    with pytest.raises(
        FileNotFoundError, match=r"checkpoint file, got no\.pth"
    ):
        san.create_model("san10_pair", checkpoint="no.pth")


@pytest.mark.parametrize("parameter", ["checkpoint", "features", "in_channels"])
def test_gin_does_not_say_what_the_caller_does(parameter):
    with pytest.raises(ValueError, match="denylisted"):
        gin.parse_config(f"create_model.{parameter} = 1")


def test_a_network_of_ones_own(tmp_path):
    gin.clear_config()

    def make(num_classes):
        return torch.nn.Sequential(torch.nn.Linear(3, num_classes))

    path = saved(make(4), tmp_path / "m.pth")
    made = san.create_model(make, 4, path)
    assert torch.equal(
        made[0].weight, torch.load(path)["state_dict"]["0.weight"]
    )
    with pytest.raises(ValueError, match=r"misshapen: 0.weight \[4, 3\]"):
        san.create_model(make, 5, path)
    with pytest.raises(TypeError):
        san.create_model(make, in_channels=1)


def test_nothing_is_loaded_by_halves(tmp_path):
    model = trained()
    weights = copy.deepcopy(model.state_dict())
    weights["bn2.weight"] = torch.zeros(3)
    torch.save(weights, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"misshapen: bn2.weight \[3\]"):
        san.create_model("table4/pair/subtraction", 9, tmp_path / "m.pth")
