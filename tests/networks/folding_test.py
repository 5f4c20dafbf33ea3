"""Folded networks compute what the networks that they are made of do."""

import copy
import io
import json
import pathlib
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune

import san
from tests.networks import synthetic

GOLDEN = json.loads(pathlib.Path(__file__).with_name("golden.json").read_text())
SMALL = {
    "pair": san.PairwiseAttention,
    "patch": san.PatchwiseAttention,
}
# Of the largest output.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def randomised(model):
    """Random in every norm, scales of both signs and zero among them."""
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            for tensor in (norm.running_mean, norm.weight, norm.bias):
                tensor += torch.randn(tensor.shape, generator=generator) * 0.3
            norm.weight[::3] *= -1
            norm.weight[1::8] = 0
        for module in model.modules():
            if isinstance(module, san.PairwiseAttention):
                # Weights far from equal, so that the positions count.
                for layer in (
                    module.conv_p,
                    module.conv_w[2],
                    module.conv_w[5],
                ):
                    layer.weight *= 3
    return model.eval()


def small_san(kind):
    torch.manual_seed(0)
    return randomised(
        san.SAN(
            SMALL[kind],
            num_blocks=(1, 2, 1, 1, 1),
            widths=(32, 64, 64, 96, 96),
            num_classes=4,
        )
    )


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assert_same_outputs(model, images, folded=None):
    folded = folded or san.fold_for_inference(model)
    with torch.no_grad():
        expected, output = model(images), folded(images)
    assert output.dtype == expected.dtype
    error = (output - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[images.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", san.list_models())
def test_every_network(name, dtype):
    torch.manual_seed(0)
    model = randomised(san.create_model(name, num_classes=10)).to(dtype)
    assert_same_outputs(model, torch.randn(2, 3, 36, 45, dtype=dtype))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(name):
    model = san.create_model(name).eval()
    model.load_state_dict(synthetic.state_dict(model, name.split("_")[1]))
    with torch.inference_mode():
        logits = san.fold_for_inference(model)(synthetic.image())
    torch.testing.assert_close(
        logits[0, ::37],
        torch.tensor(GOLDEN[name]["logits"]),
        rtol=0,
        atol=2e-4,
    )


@pytest.mark.parametrize("name", ["san10_pair", "san10_patch", "resnet26"])
def test_leaves_no_batch_norm_and_no_parameter_to_train(name):
    folded = san.fold_for_inference(san.create_model(name, num_classes=2))
    assert not any(isinstance(m, _BatchNorm) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_a_table_belongs_to_one_size_and_dtype(kind):
    model = small_san(kind)
    folded = san.fold_for_inference(model)
    for size in [(32, 32), (33, 64), (32, 32), (64, 33)]:
        assert_same_outputs(model, torch.randn(1, 3, *size), folded)
    images = torch.randn(1, 3, 64, 33)
    with torch.no_grad():
        expected = folded(images)
        output = folded.double()(images.double())
    torch.testing.assert_close(output.float(), expected)


@pytest.mark.parametrize("assign", [False, True])
def test_loads_the_weights_of_another(assign):
    images = torch.randn(2, 3, 32, 33)
    model, other = small_san("pair"), small_san("pair")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    folded = san.fold_for_inference(model)
    assert_same_outputs(model, images, folded)
    weights = san.fold_for_inference(other).state_dict()
    folded.load_state_dict(weights, assign=assign)
    assert_same_outputs(other, images, folded)


@pytest.mark.parametrize(
    ("made", "edited"),
    [
        (torch.no_grad, torch.no_grad),
        (torch.no_grad, torch.inference_mode),
        (torch.inference_mode, torch.inference_mode),
    ],
)
@pytest.mark.parametrize(
    "constant",
    [
        "attention.scale",
        "attention.position_w1",
        "attention.w2",
        "attention.features.weight",
        "attention.features.norm.shift",
        "layer1_0.weight",
        "conv2.weight",
    ],
)
def test_edits_of_a_constant_count(constant, made, edited):
    folded = san.fold_for_inference(small_san("pair"))
    with made():
        folded.double()
    images = torch.randn(2, 3, 32, 33, dtype=torch.float64)
    before = folded(images)
    with edited():
        for name, buffer in folded.named_buffers():
            if name.endswith(f".{constant}"):
                buffer.mul_(1.5)
    # A copy has no cache to be out of date.
    expected = copy.deepcopy(folded)(images)
    assert (expected - before).abs().max() > 1e-6
    torch.testing.assert_close(folded(images), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_are_their_own(copied):
    model = small_san("pair")
    folded = san.fold_for_inference(model)
    before = len(pickle.dumps(folded))
    images = torch.randn(2, 3, 32, 33)
    assert_same_outputs(model, images, folded)
    assert len(pickle.dumps(folded)) == before
    twin = copied(folded)
    with torch.no_grad():
        for buffer in folded.buffers():
            buffer.zero_()
    assert_same_outputs(model, images, twin)


@pytest.mark.parametrize("kind", SMALL)
def test_images_of_several_pieces(kind):
    # More rows than one band of the first layer has, and more pixels than
    # one piece of the first norm, both with a rest.
    images = torch.randn(3, 3, 67, 261)
    assert_same_outputs(small_san(kind), images)
    transposed = images.transpose(2, 3)
    assert_same_outputs(small_san(kind), transposed)


@pytest.mark.parametrize("kind", SMALL)
def test_no_images(kind):
    images = torch.randn(0, 3, 32, 32)
    assert san.fold_for_inference(small_san(kind))(images).shape == (0, 4)


@pytest.mark.parametrize("kind", SMALL)
def test_any_device(kind):
    folded = san.fold_for_inference(small_san(kind)).to("meta")
    output = folded(torch.empty(2, 3, 32, 64, device="meta"))
    assert output.shape == (2, 4)
    assert output.device.type == "meta"


def test_real_images_after_fake_ones():
    model = small_san("pair")
    folded = san.fold_for_inference(model)
    images = torch.randn(1, 3, 32, 32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        folded(mode.from_tensor(images))
    assert_same_outputs(model, images, folded)


@pytest.mark.parametrize("kind", SMALL)
def test_leaves_the_model_and_the_images(kind):
    model = small_san(kind).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    kept = images.clone()
    folded = san.fold_for_inference(model)
    folded(images.contiguous(memory_format=torch.channels_last))
    folded(images)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(images, kept, rtol=0, atol=0)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in folded.modules())


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_of_images_after_inference_mode(kind):
    model = small_san(kind).double()
    with torch.inference_mode():
        folded = san.fold_for_inference(model)
        folded(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    expected, grad = (
        torch.autograd.grad(network(images).square().sum(), images)
        for network in (model, folded)
    )
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("kind", [*SMALL, "resnet"])
def test_compiles_into_one_graph(kind):
    if kind == "resnet":
        model = randomised(san.ResNet((1, 1, 1, 1), num_classes=4))
    else:
        model = small_san(kind)
    folded = san.fold_for_inference(model)
    images = torch.randn(2, 3, 32, 64)
    compiled = torch.compile(folded, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), folded(images))


@pytest.mark.parametrize("kind", SMALL)
def test_bfloat16(kind):
    model = small_san(kind)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = san.fold_for_inference(model)(images)
        model = model.bfloat16()
        output = san.fold_for_inference(model)(images.bfloat16())
    assert mixed.dtype == output.dtype == torch.bfloat16
    scale = expected.abs().max()
    assert (mixed - expected).abs().max() < 0.1 * scale
    assert (output - expected).abs().max() < 0.1 * scale


@pytest.mark.parametrize("kind", SMALL)
def test_folds_into_another_dtype(kind):
    model = small_san(kind)
    images = torch.randn(3, 3, 64, 65)
    with torch.inference_mode():
        expected = model(images)
        for dtype, bound in ((torch.bfloat16, 0.03), (torch.float64, 1e-5)):
            folded = san.fold_for_inference(model, dtype)
            output = folded(images.to(dtype))
            assert output.dtype == dtype
            error = (output - expected).abs().max() / expected.abs().max()
            assert error < bound
        with pytest.raises(ValueError, match="images must be torch"):
            folded(images)
    assert model.conv_in.weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r"dtype must be one of .*int8"):
        san.fold_for_inference(model, torch.int8)


def test_bfloat16_does_not_depend_on_threads():
    folded = san.fold_for_inference(small_san("pair"), torch.bfloat16)
    images = torch.randn(2, 3, 67, 80).bfloat16()
    threads, outputs = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        outputs.append(folded(images))
    torch.set_num_threads(threads)
    assert all(torch.equal(y, outputs[0]) for y in outputs)


def test_refuses_training():
    folded = san.fold_for_inference(small_san("pair"))
    assert folded.eval() is folded
    with pytest.raises(RuntimeError, match=r"must stay in eval mode, got"):
        folded.train()


def test_refuses_other_networks():
    with pytest.raises(ValueError, match=r"ResNet, got Linear"):
        san.fold_for_inference(nn.Linear(2, 2))

    class Halved(san.SAN):
        def forward(self, x):
            return super().forward(x) / 2

    model = Halved(san.PairwiseAttention, (1,), (3,), (32,), 4)
    with pytest.raises(ValueError, match="Halved has a forward of its own"):
        san.fold_for_inference(model)


@pytest.mark.parametrize("kind", [*SMALL, "resnet"])
def test_refuses_hooks_on_the_whole(kind):
    if kind == "resnet":
        model = san.ResNet((1, 1, 1, 1), num_classes=4)
    else:
        model = small_san(kind)
    model.register_forward_hook(lambda *a: None)
    with pytest.raises(ValueError, match="the model has a forward hook"):
        san.fold_for_inference(model)


def test_leaves_norms_without_statistics():
    torch.manual_seed(0)
    model = randomised(san.ResNet((1, 1, 1, 1), num_classes=2)).double()
    model.bn1 = nn.BatchNorm2d(64, track_running_stats=False).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with pytest.warns(UserWarning, match="bn1: a norm has no running stat"):
        folded = san.fold_for_inference(model)
    assert_same_outputs(model, images, folded)
    assert [m for m in folded.modules() if isinstance(m, _BatchNorm)]


def resnet_with_a_hook():
    model = san.ResNet((1, 1, 1, 1), num_classes=2)
    hook = lambda module, args, output: output * 0.5  # noqa: E731
    model.layer1[0].conv2.register_forward_hook(hook)
    return model


def resnet_with_its_own_norm():
    class Norm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    model = san.ResNet((1, 1, 1, 1), num_classes=2)
    model.layer1[0].downsample[1] = Norm(256)
    return model


def resnet_with_pruned_weights():
    model = san.ResNet((1, 1, 1, 1), num_classes=2)
    prune.l1_unstructured(model.layer2[0].conv3, "weight", 0.5)
    return model


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (resnet_with_a_hook, "layer1.0.bn2"),
        (resnet_with_its_own_norm, "layer1.0.downsample.1"),
        (resnet_with_pruned_weights, "layer2.0.bn3"),
    ],
)
def test_leaves_what_people_changed_in_a_resnet(make, name):
    torch.manual_seed(0)
    model = randomised(make()).double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with pytest.warns(UserWarning, match=f"left as it is: {name}: "):
        folded = san.fold_for_inference(model)
    assert_same_outputs(model, images, folded)


@pytest.mark.parametrize("kind", SMALL)
def test_outputs_that_were_given_out_stay(kind):
    folded = san.fold_for_inference(small_san(kind))
    layers = dict(folded.network.layers.named_children())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = folded(images)
        x, given = images, []
        for layer in layers.values():
            x = layer(x)
            given.append((x, x.clone()))
        for module in folded.modules():
            module.register_forward_hook(
                lambda module, args, output: given.extend(
                    (t, t.clone()) for t in (*args, output)
                )
            )
        assert torch.equal(folded(images), expected)
    assert len(given) > len(layers)
    for tensor, as_it_was in given:
        assert torch.equal(tensor, as_it_was)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_networks_take_images_of_every_size(kind):
    model = small_san(kind)
    networks = {"folded": san.fold_for_inference(model), "whole": model}
    with torch.no_grad():
        for name, network in networks.items():
            traced = torch.jit.trace(network, torch.randn(2, 3, 64, 64))
            # The smallest images; some that are worked on in pieces.
            for shape in ((1, 3, 32, 32), (1, 3, 35, 90), (3, 3, 160, 97)):
                images = torch.randn(shape)
                torch.testing.assert_close(
                    traced(images), network(images), msg=f"{name} {shape}"
                )
