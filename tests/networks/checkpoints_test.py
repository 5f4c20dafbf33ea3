import argparse
import collections
import os
import pickle

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import san
from san import safetensors_file
from san.checkpoints import read_checkpoint, read_state_dict


def small_san(num_classes=4):
    return san.SAN(san.PairwiseAttention, (1, 1), (3, 3), (32, 32), num_classes)


def published(model):
    """The contents of a published file."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        "epoch": 100,
        "state_dict": collections.OrderedDict(
            (f"module.{name}", tensor)
            for name, tensor in model.state_dict().items()
        ),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "top1_val": 74.9,
        "top5_val": 92.1,
    }


def save(contents, path):
    torch.save(contents, path)
    return path


def assert_equal_weights(model, other):
    own, others = model.state_dict(), other.state_dict()
    assert own.keys() == others.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_the_published_layout(tmp_path, zipped, as_text):
    trained, model = small_san(), small_san()
    path = tmp_path / "model.pth"
    # The oldest files are no zip archives.
    torch.save(published(trained), path, _use_new_zipfile_serialization=zipped)
    path = str(path) if as_text else path
    assert san.load_published_checkpoint(model, path) is model
    assert_equal_weights(model, trained)


def test_reads_a_state_dict_alone(tmp_path):
    trained, model = small_san(), small_san()
    path = save(trained.state_dict(), tmp_path / "model.pth")
    san.load_published_checkpoint(model, path)
    assert_equal_weights(model, trained)


PREFIXES = [
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model._orig_mod.",
    "module.module.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("entry", ["state_dict", "model", "net", None])
def test_reads_what_other_tools_write(tmp_path, entry, prefix):
    """By any name, beside the rest, with the wrappers' names before all."""
    trained, model = small_san(), small_san()
    weights = {
        f"{prefix}{name}": tensor
        for name, tensor in trained.state_dict().items()
    }
    beside = {
        "epoch": 3,
        "optimizer": published(small_san())["optimizer"],
        "criterion": {"weight": torch.ones(4)},
        "rng": {"cpu": torch.get_rng_state()},
        "scaler": {"scale": 65536.0},
        "ema": None,
    }
    path = tmp_path / "model.pth"
    save(weights if entry is None else {entry: weights} | beside, path)
    san.load_published_checkpoint(model, path)
    assert_equal_weights(model, trained)


def test_what_wrappers_really_write(tmp_path):
    trained = small_san()
    average = AveragedModel(torch.nn.DataParallel(trained))
    for number, wrapped in enumerate((torch.compile(trained), average)):
        path = save({"m": wrapped.state_dict()}, tmp_path / f"{number}.pth")
        model = small_san()
        san.load_published_checkpoint(model, path)
        assert_equal_weights(model, trained)


class Wrapping(torch.nn.Module):
    """A network inside another."""

    def __init__(self, name):
        super().__init__()
        self.add_module(name, small_san())


@pytest.mark.parametrize("name", ["model", "module"])
def test_a_network_may_have_a_wrappers_name_itself(tmp_path, name):
    trained, model = Wrapping(name), Wrapping(name)
    path = save(trained.state_dict(), tmp_path / "model.pth")
    san.load_published_checkpoint(model, path)
    assert_equal_weights(model, trained)
    san.load_published_checkpoint(torch.compile(small_san()), path)


@pytest.mark.parametrize("other", ["state_dict_ema", "teacher"])
def test_several_networks_in_one_file_are_not_chosen_from(tmp_path, other):
    weights = small_san().state_dict()
    contents = {"epoch": 3, "state_dict": weights, other: weights}
    path = save(contents, tmp_path / "model.pth")
    with pytest.raises(
        ValueError,
        match=rf"one network, got state_dict \(\d+ tensors\), {other} \(\d+ "
        r"tensors\) in .*model.pth; save the one",
    ):
        san.load_published_checkpoint(small_san(), path)


def test_what_is_averaged_is_not_what_was_trained(tmp_path):
    """Of our own, with Recipe.ema_decay."""
    average, model = small_san(), small_san()
    contents = {
        "trained_state_dict": small_san().state_dict(),
        "state_dict": average.state_dict(),
    }
    path = save(contents, tmp_path / "model.pth")
    san.load_published_checkpoint(model, path)
    assert_equal_weights(model, average)


def test_a_prefix_that_is_in_the_way_is_named(tmp_path):
    weights = {
        f"net.backbone.{name}": tensor
        for name, tensor in small_san().state_dict().items()
    }
    path = save({"model": weights}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"prefix 'net\.backbone\.' of all"):
        san.load_published_checkpoint(small_san(), path)
    weights["criterion.weight"] = torch.zeros(4)
    save({"model": weights}, path)
    with pytest.raises(ValueError, match=r"extra: net\.") as error:
        san.load_published_checkpoint(small_san(), path)
    assert "without the prefix" not in str(error.value)


def test_strips_the_prefix_of_all_entries_or_none(tmp_path):
    weights = {"module.a": torch.zeros(1), "b": torch.zeros(2)}
    path = save(weights, tmp_path / "model.pth")
    assert read_state_dict(path).keys() == weights.keys()


def test_full_size(tmp_path):
    with torch.device("meta"):
        model = san.create_model("san10_patch")
    weights = {
        f"module.{name}": torch.full(tensor.shape, 2).to(tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    path = save({"state_dict": weights}, tmp_path / "model.pth")
    model = san.load_published_checkpoint(san.create_model("san10_patch"), path)
    assert all((tensor == 2).all() for tensor in model.state_dict().values())


def test_entries_that_do_not_fit(tmp_path):
    weights = small_san(num_classes=7).state_dict()
    weights["layer0.0.sam.conv_q.weight"] = weights.pop(
        "layer0.0.sam.conv_p.weight"
    )
    path = save({"state_dict": weights}, tmp_path / "model.pth")
    model, before = small_san(), small_san()
    before.load_state_dict(model.state_dict())
    with pytest.raises(ValueError) as error:
        san.load_published_checkpoint(model, path)
    message = str(error.value)
    assert "1 missing: layer0.0.sam.conv_p.weight;" in message
    assert "1 extra: layer0.0.sam.conv_q.weight;" in message
    assert (
        "2 misshapen: fc.weight [7, 32] instead of [4, 32], "
        "fc.bias [7] instead of [4]" in message
    )
    assert str(path) in message
    assert_equal_weights(model, before)


def test_a_long_list_is_cut(tmp_path):
    path = save(
        san.create_model("resnet26", num_classes=4).state_dict(),
        tmp_path / "model.pth",
    )
    with pytest.raises(ValueError, match=r"missing: .* and [0-9]+ more; ") as e:
        san.load_published_checkpoint(small_san(), path)
    assert len(str(e.value)) < 2000


def test_numbers_of_numpy_are_plain_values(tmp_path):
    model = small_san()
    checkpoint = {
        "state_dict": model.state_dict(),
        "epoch": np.int64(100),
        "top1_val": np.float64(74.9),
        "top5_val": np.float32(92.1),
    }
    path = save(checkpoint, tmp_path / "model.pth")
    assert read_checkpoint(path)["top1_val"] == 74.9
    san.load_published_checkpoint(small_san(), path)


def test_arguments_of_a_command_are_plain_values(tmp_path):
    arguments = argparse.Namespace(lr=0.1, sizes=[1, 2], nested={"a": None})
    contents = {"model": small_san().state_dict(), "args": arguments}
    path = save(contents, tmp_path / "model.pth")
    assert read_checkpoint(path)["args"] == arguments
    san.load_published_checkpoint(small_san(), path)
    arguments.sizes = Malicious(tmp_path / "executed")
    save(contents, path)
    with pytest.raises(ValueError, match="nothing of it was executed"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be .* got .*absent.pth"):
        san.load_published_checkpoint(small_san(), tmp_path / "absent.pth")


def test_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="path must be a checkpoint"):
        san.load_published_checkpoint(small_san(), tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_file(tmp_path, zipped, share):
    path = tmp_path / "model.pth"
    torch.save(
        {"state_dict": small_san().state_dict()},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"must be a whole checkpoint .*model"):
        san.load_published_checkpoint(small_san(), path)


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("<html>404: not found</html>")
    with pytest.raises(ValueError, match="must be a whole checkpoint"):
        san.load_published_checkpoint(small_san(), path)


def test_a_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(ValueError, match=r"not fetched; git lfs pull does"):
        san.load_published_checkpoint(small_san(), path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_reads_safetensors_whatever_their_name(tmp_path, name, prefix):
    trained, model = small_san(), small_san()
    state_dict = trained.state_dict().items()
    weights = {f"{prefix}{name}": tensor for name, tensor in state_dict}
    (tmp_path / name).write_bytes(safetensors_file.pack(weights, {}))
    san.load_published_checkpoint(model, tmp_path / name)
    assert_equal_weights(model, trained)
    assert read_checkpoint(tmp_path / name).keys() == {"state_dict"}


def test_what_is_no_safetensors_in_spite_of_its_name(tmp_path):
    trained, model = small_san(), small_san()
    path = save(trained.state_dict(), tmp_path / "model.safetensors")
    san.load_published_checkpoint(model, path)
    assert_equal_weights(model, trained)


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_nothing_in_the_file_is_executed(tmp_path, plain_pickle):
    path, folder = tmp_path / "model.pth", tmp_path / "executed"
    contents = {
        "state_dict": small_san().state_dict(),
        "epoch": Malicious(folder),
    }
    if plain_pickle:
        path.write_bytes(pickle.dumps({"epoch": Malicious(folder)}, protocol=2))
    else:
        torch.save(contents, path)
    with pytest.raises(
        ValueError,
        match=r"tensors and plain values only, got the name \S+\.mkdir in",
    ):
        san.load_published_checkpoint(small_san(), path)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (torch.zeros(3), "file must hold a dict, got Tensor in"),
        ({}, "must hold a dict of tensors, .* got an empty dict in"),
        ({"state_dict": {}}, "got an empty dict in"),
        ({"state_dict": [1]}, "got one list in"),
        (
            {"epoch": 3, "model": torch.zeros(1)},
            "by itself or as an entry such as 'state_dict', got epoch \\(int\\) in",
        ),
        (
            {"state_dict": {"fc.bias": "zeros", 4: torch.zeros(1)}},
            "got fc.bias \\(str\\), 4 \\(Tensor\\) in",
        ),
    ],
)
def test_contents_of_another_kind(tmp_path, contents, message):
    path = save(contents, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        san.load_published_checkpoint(small_san(), path)
