"""The networks by name: what they are called and what they are made of."""

import gin
import pytest
import torch

import san

NAMES = [
    "san10_pair",
    "san10_patch",
    "san15_pair",
    "san15_patch",
    "san19_pair",
    "san19_patch",
    "resnet26",
    "resnet38",
    "resnet50",
]


def test_names_in_the_order_of_the_paper():
    assert san.list_models() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    model = san.create_model(name, num_classes=5)
    logits = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", NAMES[:6])
def test_published_long_names(name):
    with torch.device("meta"):
        short = san.create_model(name)
        long = san.create_model(f"{name}wise")
    assert short.state_dict().keys() == long.state_dict().keys()
    assert str(short) == str(long)


def test_unknown_name_tells_the_known_ones_and_the_nearest():
    with pytest.raises(ValueError) as error:
        san.create_model("san10pair")
    message = str(error.value)
    assert message.startswith("create_model: name must be one of san10_pair, ")
    assert "got 'san10pair'; the nearest is 'san10_pair'" in message
    assert all(name in message for name in NAMES)


@pytest.mark.parametrize("name", ["", "resnet", 10])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="create_model: name must be one of"):
        san.create_model(name)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "10"])
def test_number_of_classes_is_checked(num_classes):
    with pytest.raises(
        ValueError, match="create_model: num_classes must be a positive int"
    ):
        san.create_model("san10_pair", num_classes=num_classes)


def test_a_constructor_in_place_of_a_name():
    model = san.create_model(
        lambda num_classes: san.SAN(
            san.PatchwiseAttention, (1,), (3,), (32,), num_classes
        ),
        num_classes=3,
    )
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "num_entries"),
    [
        ("san10_pair", 368),
        ("san10_patch", 348),
        ("san15_pair", 533),
        ("san15_patch", 503),
        ("san19_pair", 665),
        ("san19_patch", 627),
    ],
)
def test_number_of_entries_of_the_state_dict(name, num_entries):
    with torch.device("meta"):
        assert len(san.create_model(name).state_dict()) == num_entries


def test_published_names_and_shapes_of_parameters():
    with torch.device("meta"):
        pair = san.create_model("san10_pair")
        patch = san.create_model("san10_patch")
    shapes = {name: tuple(p.shape) for name, p in pair.named_parameters()}
    block = "layer1.0."
    assert {
        name.removeprefix(block): shape
        for name, shape in shapes.items()
        if name.startswith(block)
    } == {
        "bn1.weight": (256,),
        "bn1.bias": (256,),
        "sam.conv1.weight": (16, 256, 1, 1),
        "sam.conv1.bias": (16,),
        "sam.conv2.weight": (16, 256, 1, 1),
        "sam.conv2.bias": (16,),
        "sam.conv3.weight": (64, 256, 1, 1),
        "sam.conv3.bias": (64,),
        "sam.conv_p.weight": (2, 2, 1, 1),
        "sam.conv_p.bias": (2,),
        "sam.conv_w.0.weight": (18,),
        "sam.conv_w.0.bias": (18,),
        "sam.conv_w.2.weight": (16, 18, 1, 1),
        "sam.conv_w.3.weight": (16,),
        "sam.conv_w.3.bias": (16,),
        "sam.conv_w.5.weight": (8, 16, 1, 1),
        "sam.conv_w.5.bias": (8,),
        "bn2.weight": (64,),
        "bn2.bias": (64,),
        "conv.weight": (256, 64, 1, 1),
        "conv.bias": (256,),
    }
    assert {name for name in shapes if not name.startswith("layer")} == {
        "conv_in.weight",
        "bn_in.weight",
        "bn_in.bias",
        *(f"conv{stage}.weight" for stage in range(5)),
        *(f"bn{stage}.weight" for stage in range(5)),
        *(f"bn{stage}.bias" for stage in range(5)),
        "fc.weight",
        "fc.bias",
    }
    shapes = {name: tuple(p.shape) for name, p in patch.named_parameters()}
    assert shapes["layer0.0.sam.conv_w.2.weight"] == (2, 40, 1, 1)
    assert shapes["layer4.0.sam.conv_w.0.weight"] == (6400,)
    assert shapes["layer4.0.sam.conv_w.5.weight"] == (3136, 64, 1, 1)
    assert not any("conv_p" in name for name in shapes)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_resnet_halves_the_image_in_the_kxk(kernel_size):
    with torch.device("meta"):
        model = san.ResNet((1, 2, 4, 1), kernel_size=kernel_size)
    strided = {
        name: module.kernel_size
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)
    }
    assert strided == {
        "conv1": (7, 7),
        **{f"layer{n}.0.conv2": (kernel_size, kernel_size) for n in (2, 3, 4)},
        **{f"layer{n}.0.downsample.0": (1, 1) for n in (2, 3, 4)},
    }


@pytest.mark.parametrize(
    ("constructor", "arguments", "message"),
    [
        (
            san.PairwiseAttention,
            (48, 3),
            "PairwiseAttention: channels must be a multiple of 32, got 48",
        ),
        (
            san.PatchwiseAttention,
            (0, 3),
            "PatchwiseAttention: channels must be a multiple of 32, got 0",
        ),
        (
            san.PairwiseAttention,
            (64, 4),
            "PairwiseAttention: kernel_size must be a positive odd number, g",
        ),
        (
            san.SAN,
            (san.PairwiseAttention, (1, 1)),
            r"SAN: num_blocks, kernel_sizes and widths must have one entry p",
        ),
        (
            san.ResNet,
            ((1, 2, 3),),
            r"ResNet: num_blocks must have 4 entries, got \(1, 2, 3\)",
        ),
        (
            san.ResNet,
            ((1, 2, 0, 1),),
            r"ResNet: num_blocks must be numbers of at least 1, got \(1, 2, 0",
        ),
        (
            san.ResNet,
            ((1, 1, 1, 1), 10, 3, (8, 8, 8)),
            r"ResNet: widths must have 4 entries, got \(8, 8, 8\)",
        ),
        (
            san.ResNet,
            ((1, 1, 1, 1), 10, 4),
            "ResNet: kernel_size must be a positive odd number, got 4",
        ),
        (
            san.ResNet,
            ((1, 1, 1, 1), 10, 3.0),
            "ResNet: kernel_size must be a positive odd number, got 3.0",
        ),
    ],
)
def test_sizes_that_fit_nothing(constructor, arguments, message):
    with pytest.raises(ValueError, match=message):
        constructor(*arguments)


@pytest.fixture
def _no_bindings():
    with gin.unlock_config():
        yield
        gin.clear_config()


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("san10_pair", "SAN.num_blocks", "(1, 1)"),
        ("san10_patchwise", "SAN.attention", "@PairwiseAttention"),
        ("resnet26", "ResNet.num_blocks", "(1, 1, 1, 1)"),
        ("resnet26", "san.ResNet.num_blocks", "(1, 1, 1, 1)"),
    ],
)
def test_what_a_name_says_is_not_bound(_no_bindings, name, parameter, value):
    gin.parse_config(f"{parameter} = {value}")
    short = parameter.removeprefix("san.")
    message = f"create_model: {short} must not be bound beside .*{name}"
    with pytest.raises(ValueError, match=message):
        san.create_model(name)


def test_what_a_name_leaves_open_is_bound(_no_bindings):
    gin.parse_config("SAN.kernel_sizes = (3, 3, 3, 3, 3)")
    model = san.create_model("san10_pair")
    blocks = [layer[0].sam for layer in (model.layer1, model.layer4)]
    assert [block.kernel_size for block in blocks] == [3, 3]
