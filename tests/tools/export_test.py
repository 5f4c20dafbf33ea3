"""Exported networks, by the libraries that run them."""

import functools
import json
import pathlib

import numpy as np
import onnx
import openvino
import pytest
import torch
from PIL import Image
from torch import nn

import san
from eval.loading import Network
from san.data import Data, ValidationLoader, load_split
from tests.data.sample_images import picture
from tests.train import command_server, jobs
from tools.export import comparison, formats, onnx_file, pt2_file, tracing
from tools.export.deployable import deployable

CLASSES = ["cat", "dög", "zebra"]
DATA = Data(image_size=34, resize_size=38, num_threads=1, mean=(0.5, 0.4, 0.3))
SMALL_SAN = functools.partial(
    san.SAN, num_blocks=(1,), kernel_sizes=(3,), widths=(32,)
)
NETWORKS = {
    "pair": functools.partial(SMALL_SAN, san.PairwiseAttention),
    "patch": functools.partial(SMALL_SAN, san.PatchwiseAttention),
    "resnet": functools.partial(
        san.ResNet, num_blocks=(1, 1, 1, 1), widths=(8, 8, 8, 8)
    ),
}
# The smallest, where a stage has one pixel and every neighbour is a mirror
# image; odd; far from square.
SIZES = {"pair": (2, 2), "patch": (3, 2), "resnet": (5, 33)}


def network(kind):
    """With statistics that are not those of a fresh network."""
    torch.manual_seed(0)
    model = NETWORKS[kind](num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Network({"classes": CLASSES, "epoch": 7}, model, None, 3)


def source(kind, ops="aten", dtype=torch.float32):
    return deployable(network(kind), DATA, ops, dtype)


# Which no file should tell.
SOURCES = str(pathlib.Path(san.__file__).parent).encode()


@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_files_run_in_onnxruntime_and_openvino(kind, tmp_path):
    ours = source(kind)
    file, report = formats.make("onnx", ours)
    assert (
        "any size" in report and "2x34x34, 1x35x69, 3x66x34, 1x32x32" in report
    )
    assert SOURCES not in file
    model = onnx.load_from_string(file)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import] == [20]
    assert model.ir_version == 9  # Of 2023, as this opset.
    written = {entry.key: entry.value for entry in model.metadata_props}
    assert written == ours.metadata
    (entry,) = model.graph.input
    axes = entry.type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    core = openvino.Core()
    # By default bfloat16, where the CPU has it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model=file), "CPU", exact)
    for batch in (1, 3):
        images = torch.randn(batch, 3, *SIZES[kind])
        expected = ours(images)
        assert expected.isfinite().all()
        (logits,) = onnx_file.run(file, [images])
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        logits = torch.from_numpy(compiled(images.numpy())["logits"])
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "ops", "dtype"),
    [
        ("pair", "san", torch.bfloat16),
        ("patch", "aten", torch.float32),
    ],
)
def test_pt2_files_run_in_a_process_of_their_own(kind, ops, dtype, tmp_path):
    file, report = formats.make("torch_export", source(kind, ops, dtype))
    assert "pixels or more" in report and "1x35x69" in report
    assert SOURCES not in file
    path = tmp_path / "network.pt2"
    path.write_bytes(file)
    extra = {pt2_file.METADATA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    metadata = json.loads(extra[pt2_file.METADATA_FILE])
    assert json.loads(metadata["classes"]) == CLASSES
    if ops == "san":
        images = [torch.zeros(1, 3, 34, 34)]
        with pytest.raises(ValueError, match="fresh process, got exit code 1"):
            pt2_file.run(file, "torch_export", "aten", images)


class Tiny(nn.Module):
    """What a C++ compiler is done with soon."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images).relu().mean((2, 3)))


def test_compiled_files_run_in_a_process_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tiny = Network({"classes": CLASSES}, Tiny(), None, 3)
    ours = deployable(tiny, DATA, "aten", torch.float32)
    file, report = formats.make("aotinductor", ours)
    assert "1x35x69" in report
    path = tmp_path / "network.pt2"
    path.write_bytes(file)
    compiled = torch._inductor.aoti_load_package(path)
    assert ours.metadata.items() <= compiled.get_metadata().items()


def test_pt2_files_for_images_too_small_for_free_sizes_have_one():
    data = Data(image_size=2, resize_size=2)
    ours = deployable(network("patch"), data, "san", torch.float32)
    traced = tracing.trace(ours, any_size=False)
    assert (traced.least, traced.is_free) == (2, False)
    images = torch.randn(3, 3, 2, 2)
    torch.testing.assert_close(traced.program.module()(images), ours(images))


@pytest.mark.parametrize(("side", "least"), [(32, 32), (48, 33)])
def test_resnets_need_two_pixels_in_the_last_stage_too(side, least):
    model = san.ResNet((1, 1, 1, 1), num_classes=3, widths=(4, 4, 4, 4))
    data = Data(image_size=side, resize_size=side)
    small = Network({}, model, None, 3)
    ours = deployable(small, data, "aten", torch.float32)
    traced = tracing.trace(ours, any_size=False)
    assert (traced.least, traced.is_free) == (least, side > 32)
    images = torch.randn(3, 3, side, side)
    found = traced.program.module()(images)
    torch.testing.assert_close(found, ours(images), rtol=1e-4, atol=1e-5)


def test_folded_networks_are_refused_or_right():
    whole = network("pair")
    folded = Network(
        whole.checkpoint, san.fold_for_inference(whole.model), None, 3
    )
    ours = deployable(folded, DATA, "aten", torch.float32)
    with pytest.raises(ValueError, match=r"san::\w+.*; a folded network"):
        tracing.trace(ours, any_size=True)
    ours = deployable(folded, DATA, "san", torch.float32)
    module = tracing.trace(ours, any_size=False).program.module()
    for shape in ((1, 3, 35, 81), (4, 3, 32, 32)):
        images = torch.randn(shape)
        torch.testing.assert_close(module(images), whole.model.eval()(images))


def test_what_torch_export_does_not_take_is_said_in_a_line():
    class Deciding(nn.Module):
        def forward(self, images):
            return (
                images.mean((2, 3)) if images.sum() > 0 else images[..., 0, 0]
            )

    ours = deployable(
        Network({}, Deciding(), None, 3), DATA, "aten", torch.float32
    )
    with pytest.raises(ValueError, match=r"^export: the network must.*$"):
        tracing.trace(ours, any_size=True)


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_another_network_is_not_taken_for_this_one(error):
    ours = source("resnet")
    traced = tracing.Traced(None, 1, True)

    def run(batches):
        return [ours(batch) for batch in batches]

    agreement = comparison.compare(ours, traced, run, least=1)
    assert agreement.difference == 0

    def run_badly(batches):
        *good, last = run(batches)
        return [*good, last + error]

    with pytest.raises(ValueError, match="got a difference of"):
        comparison.compare(ours, traced, run_badly, least=1)


def test_metadata_tells_a_stranger_how_to_prepare_an_image(tmp_path):
    facts = {
        name: json.loads(text)
        for name, text in source("resnet").metadata.items()
        if name not in ("network", "preprocessing")
    }
    assert facts["classes"] == CLASSES and facts["epoch"] == 7
    path = tmp_path / "val" / "a" / "0.png"
    path.parent.mkdir(parents=True)
    picture(47, 90).save(path)
    image = Image.open(path)
    scale = facts["resize_size"] / min(image.size)
    image = image.resize(
        [int(side * scale) for side in image.size], Image.Resampling.BILINEAR
    )
    left, top = ((side - facts["image_size"]) / 2 for side in image.size)
    box = round(left), round(top)
    image = image.crop([*box, *(side + facts["image_size"] for side in box)])
    values = np.asarray(image, np.float32) / 255
    pixels = ((values - facts["mean"]) / facts["std"]).transpose(2, 0, 1)
    index = load_split(str(tmp_path), "val")
    ((expected, _),) = ValidationLoader(index, DATA, batch_size=1, device="cpu")
    # Within a grey level.
    np.testing.assert_allclose(pixels, expected[0], atol=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of the small network of tests/train/jobs.py."""
    folder = tmp_path_factory.mktemp("export")
    jobs.configure(folder)
    model = san.create_model(num_classes=3)
    weights = {
        "whole": model.state_dict(),
        "folded": san.fold_for_inference(model).state_dict(),
    }
    for name, state_dict in weights.items():
        torch.save({"state_dict": state_dict}, folder / f"{name}.pth")
    return folder


def export(folder, *arguments):
    return command_server.run(
        "tools.export.main",
        f"--gin_file={folder}/small.gin",
        *arguments,
        BUILD_WORKING_DIRECTORY=str(folder),
    )


def test_the_command_says_what_it_does_and_nothing_else(folder):
    code, stdout, stderr = export(
        folder,
        "--checkpoint=whole.pth",
        "--format=torch_export",
        "--ops=san",
        "--image_size=24",
        "--output=small.pt2",
    )
    assert code == 0, stderr
    assert "takes images of" in stdout and "difference of a logit" in stdout
    assert "2x24x24" in stdout
    stages = [line.partition(" ...")[0] for line in stderr.splitlines()]
    assert stages == [
        "tracing the network",
        "writing torch_export",
        "comparing",
    ]
    extra = {pt2_file.METADATA_FILE: ""}
    torch.export.load(folder / "small.pt2", extra_files=extra)
    metadata = json.loads(extra[pt2_file.METADATA_FILE])
    assert metadata["image_size"] == "24" and metadata["resize_size"] == "28"
    assert "classes" not in metadata


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=none.pth"], "must be a checkpoint file"),
        (
            ["--checkpoint=whole.pth", "--gin_param=SAN.widths=(32,64)"],
            "entries must be those of the model",
        ),
        (["--checkpoint=folded.pth"], "fc.weight"),
        (["--checkpoint=whole.pth", "--image_size=3"], "image_size must be"),
        (
            ["--checkpoint=whole.pth", "--dtype=bfloat16"],
            "--dtype must be float32 for --format=onnx",
        ),
        (
            ["--checkpoint=whole.pth", "--format=torch_export"],
            "--output must name a file that ends in .pt2",
        ),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    code, stdout, stderr = export(folder, *arguments, "--output=bad.onnx")
    assert code in (1, 2)
    assert stderr.startswith("error: ") and message in stderr
    assert len(stderr.splitlines()) == 1 and not stdout
    assert not (folder / "bad.onnx").exists()
