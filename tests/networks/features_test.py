"""The pyramid of maps, used as detectors use it."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import san
from san.fusion.rule import NORMS

NARROW = {
    "san": lambda num_classes, **more: san.SAN(
        san.PairwiseAttention,
        (1, 0, 1, 1, 1),
        (3, 5, 5, 3, 7),
        (32, 32, 64, 64, 96),
        num_classes,
        **more,
    ),
    "patch": lambda num_classes, **more: san.SAN(
        san.PatchwiseAttention,
        (1,) * 5,
        (3,) * 5,
        (32,) * 5,
        num_classes,
        **more,
    ),
    "resnet": lambda num_classes, **more: san.ResNet(
        (1, 1, 2, 1), num_classes, 3, (4, 4, 8, 8), **more
    ),
}


def pyramid(kind="san", **more):
    torch.manual_seed(0)
    return san.create_model(NARROW[kind], features=True, **more)


class Fpn(nn.Module):
    """As "Feature Pyramid Networks for Object Detection" (2017) has it."""

    def __init__(self, channels, width):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in channels
        )

    def forward(self, maps):
        maps = [
            conv(x) for conv, x in zip(self.lateral, maps.values(), strict=True)
        ]
        for finer, coarser in zip(maps[-2::-1], maps[:0:-1], strict=True):
            finer += F.interpolate(coarser, size=finer.shape[2:])
        return [conv(x) for conv, x in zip(self.smooth, maps, strict=True)]


@pytest.mark.parametrize("name", san.list_models())
def test_names_channels_and_strides(name):
    with torch.device("meta"):
        made = san.create_model(name, features=True)
        maps = made(torch.empty(2, 3, 64, 96))
    is_san = name.startswith("san")
    first = 2 if is_san else 4
    widths = (64, 256, 512, 1024, 2048) if is_san else (256, 512, 1024, 2048)
    assert made.channels == widths
    assert made.strides == tuple(first * 2**n for n in range(len(widths)))
    assert made.names == tuple(maps)
    for channels, stride, found in zip(
        made.channels, made.strides, maps.values(), strict=True
    ):
        assert found.shape == (2, channels, 64 // stride, 96 // stride)


SIZES = [(32, 32), (33, 63), (97, 40), (224, 32), (61, 45)]


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("size", SIZES)
def test_an_fpn_on_images_of_any_size(kind, size):
    made = pyramid(kind)
    images = torch.randn(2, 3, *size, requires_grad=True)
    outputs = Fpn(made.channels, 8)(made(images))
    up = int.__floordiv__ if kind != "resnet" else lambda n, s: -(-n // s)
    assert [tuple(x.shape) for x in outputs] == [
        (2, 8, up(size[0], stride), up(size[1], stride))
        for stride in made.strides
    ]
    sum(x.square().mean() for x in outputs).backward()
    assert images.grad.any()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), (
            name
        )


@pytest.mark.parametrize("kind", NARROW)
@torch.no_grad()
def test_maps_are_those_of_the_classifier(tmp_path, kind):
    torch.manual_seed(1)
    classifier = san.create_model(NARROW[kind], 7)
    images = torch.randn(3, 3, 51, 70)
    classifier(images)
    torch.save({"model": classifier.state_dict()}, tmp_path / "m.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # No head was asked for.
        made = pyramid(kind, checkpoint=tmp_path / "m.pth")
    classifier.eval()
    maps = made.eval()(images)
    pooled = maps[made.names[-1]].mean((2, 3))
    torch.testing.assert_close(classifier.fc(pooled), classifier(images))
    seen = {}
    for number, name in enumerate(made.names[:-1]):
        # What comes into the next stage is what the maps are pooled to.
        after = (
            f"conv{number + 1}" if kind != "resnet" else f"layer{number + 2}"
        )
        getattr(classifier, after).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0]})
        )
    classifier(images)
    for name, found in seen.items():
        expected = maps[name]
        if kind != "resnet":
            expected = F.max_pool2d(expected, 2)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", NARROW)
def test_state_dict_is_the_classifiers_but_for_the_head(kind):
    classifier, made = NARROW[kind](3), pyramid(kind)
    names = classifier.state_dict().keys() - {"fc.weight", "fc.bias"}
    assert made.state_dict().keys() == names
    other = pyramid(kind)
    nn.init.ones_(made.get_parameter("layer3.0.bn1.weight").data.mul_(3))
    other.load_state_dict(made.state_dict())
    for copied in (
        other,
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
    ):
        for name, tensor in made.state_dict().items():
            assert torch.equal(tensor, copied.state_dict()[name]), name


def test_hooks_inside_see_and_change():
    made = pyramid().eval()
    images = torch.randn(1, 3, 64, 33)
    with torch.no_grad():
        before = made(images)
        calls = []
        inner = made.get_submodule("layer2.0.sam.conv_w.2")
        handle = inner.register_forward_hook(lambda *_: calls.append(1))
        after = made(images)
    assert calls == [1]
    for name, found in before.items():
        torch.testing.assert_close(after[name], found)
    handle.remove()
    made.layer3[0].register_forward_hook(
        lambda module, x, y: torch.zeros_like(y)
    )
    with torch.no_grad():
        after = made(images)
    assert torch.equal(after["layer2"], before["layer2"])
    assert not torch.allclose(after["layer3"], before["layer3"])


def test_it_is_fused_and_says_what_is_not():
    made = pyramid()
    assert san.why_unfused(made) == []
    made.bn2 = nn.GroupNorm(4, 64)
    assert any("bn2" in why for why in san.why_unfused(made))
    assert "layer2: 64 channels at stride 8" in repr(made)
    assert "bn2" in repr(made).split("\n")[1]
    assert made(torch.zeros(2, 3, 32, 32))["layer2"].shape == (2, 64, 4, 4)


@pytest.mark.parametrize("kind", NARROW)
def test_backends_agree(kind):
    made = pyramid(kind).eval()
    images = torch.randn(2, 3, 47, 34)
    with torch.no_grad():
        fused = made(images)
        with san.use_attention_backend("reference"):
            plain = made(images)
    for name in made.names:
        torch.testing.assert_close(fused[name], plain[name])


def test_compiled():
    made = san.create_model(
        lambda num_classes: san.SAN(
            san.PairwiseAttention, (0, 1), (3, 3), (32, 32), num_classes
        ),
        features=True,
    )
    compiled = torch.compile(
        copy.deepcopy(made), backend="aot_eager", fullgraph=True, dynamic=True
    )
    for size in ((24, 40), (13, 35)):
        images = torch.randn(2, 3, *size)
        for one, other in zip(
            made(images).values(), compiled(images).values(), strict=True
        ):
            torch.testing.assert_close(one, other)
    sum(x.mean() for x in compiled(images).values()).backward()


def test_frozen_norms_stay_as_they_are():
    made = pyramid().train()
    norms = [m for m in made.modules() if isinstance(m, NORMS)]
    assert norms
    for norm in norms:
        norm.eval().requires_grad_(False)
    before = copy.deepcopy(made.state_dict())
    optimizer = torch.optim.SGD(
        [p for p in made.parameters() if p.requires_grad], lr=0.1
    )
    sum(
        m.square().mean() for m in made(torch.randn(2, 3, 40, 64)).values()
    ).backward()
    optimizer.step()
    changed = {
        name
        for name, tensor in made.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    of_norms = {
        f"{name}.{entry}"
        for name, module in made.named_modules()
        if isinstance(module, NORMS)
        for entry in module.state_dict()
    }
    assert not changed & of_norms
    assert {"conv_in.weight", "layer4.0.sam.conv_w.2.weight"} <= changed


@pytest.mark.parametrize(
    "shape", [(1, 3, 31, 64), (1, 3, 64, 31), (1, 3, 1, 1)]
)
@pytest.mark.parametrize("kind", NARROW)
def test_images_that_are_too_small(kind, shape):
    with pytest.raises(
        ValueError,
        match=r"of at least 32 x 32 pixels, got \[1, 3, ",
    ):
        pyramid(kind)(torch.zeros(shape))


def test_a_single_image_without_its_batch():
    with pytest.raises(
        ValueError, match=r"must be \[N, C, H, W\] .* got \[3, 6"
    ):
        pyramid()(torch.zeros(3, 64, 64))


def test_other_networks_have_none():
    with pytest.raises(
        ValueError, match=r"SAN or a ResNet .*, got one of a Lin"
    ):
        san.create_model(lambda num_classes: nn.Linear(3, 4), features=True)

    class Changed(san.SAN):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(ValueError, match="got one of a Changed"):
        san.create_model(
            lambda num_classes: Changed(
                san.PairwiseAttention, (1,), (3,), (32,)
            ),
            features=True,
        )


def test_images_of_other_channels():
    made = pyramid(in_channels=1)
    assert made(torch.zeros(1, 1, 32, 64))["layer4"].shape == (1, 96, 1, 2)


def test_it_cannot_be_folded_and_says_so():
    with pytest.raises(ValueError, match="got FeaturePyramid"):
        san.fold_for_inference(pyramid())
