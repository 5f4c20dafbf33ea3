"""Checkpoints that travel, as a user sends and receives them."""

import json
import re
import runpy
import shutil

import gin
import pytest
import safetensors.torch
import torch

import san
from eval import command_line, loading
from san import checkpoints, safetensors_file
from san.jobs import config
from tests.train import command_server, jobs
from tools.checkpoint import facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A work folder with a network trained for an epoch, its images."""
    folder = tmp_path_factory.mktemp("travel")
    images = jobs.write_images(folder / "images")
    jobs.train_with(
        folder / "work",
        images,
        "Recipe.epochs = 1",
        "Recipe.ema_decay = 0.5",
    )
    (folder / "work" / "config.gin").write_text(config.resolved_text())
    code, stdout, stderr = run(
        folder, "export", "--workdir=work", "--output=m.safetensors"
    )
    assert code == 0, stderr
    assert stdout.startswith(
        "left out: trained_state_dict, num_averaged, optimizer, scheduler, data"
    )
    return folder


def run(folder, *arguments, module="tools.checkpoint.main"):
    return command_server.run(
        module, *arguments, BUILD_WORKING_DIRECTORY=str(folder)
    )


def network_of(path, *gin_files):
    """As the commands read it."""
    chosen = command_line.Selected(path)
    chosen.configure(gin_files, [])
    return loading.read_network(path, None)


IMAGES = torch.linspace(-1, 1, 2 * 3 * 13 * 12).reshape(2, 3, 13, 12)


def logits(model):
    with torch.no_grad():
        return model.eval()(IMAGES)


def test_there_and_back_nothing_is_lost(folder, tmp_path):
    code, _, stderr = run(
        folder,
        "import",
        "--checkpoint=m.safetensors",
        f"--output={tmp_path}/m.pth",
    )
    assert code == 0, stderr
    best = checkpoints.read_checkpoint(folder / "work/checkpoints/best.pth")
    back = checkpoints.read_checkpoint(tmp_path / "m.pth")
    assert checkpoints.has_digest(tmp_path / "m.pth")
    jobs.assert_same_bits(best["state_dict"], back["state_dict"])
    assert list(best["state_dict"]) == list(back["state_dict"])
    for name in ("epoch", "top1_val", "classes", "settings", "state", "images"):
        assert back[name] == json.loads(json.dumps(best[name])), name
    assert back["averaged"] is True
    package = safetensors.torch.load_file(folder / "m.safetensors")
    jobs.assert_same_bits(dict(best["state_dict"]), package)
    outputs = [
        logits(network_of(path).model)
        for path in (folder / "m.safetensors", tmp_path / "m.pth")
    ]
    own = network_of(
        folder / "work/checkpoints/best.pth", str(folder / "work/config.gin")
    )
    assert torch.equal(outputs[0], logits(own.model))
    assert torch.equal(outputs[1], outputs[0])


def test_the_same_checkpoint_gives_the_same_bytes(folder, tmp_path):
    run(
        folder, "export", "--workdir=work", f"--output={tmp_path}/m.safetensors"
    )
    again = (tmp_path / "m.safetensors").read_bytes()
    assert again == (folder / "m.safetensors").read_bytes()


def test_what_was_exported_gives_the_same_bytes_again(folder, tmp_path):
    code, _, stderr = run(
        tmp_path,
        "export",
        f"--checkpoint={folder}/m.safetensors",
        "--output=m.safetensors",
    )
    assert code == 0, stderr
    again = (tmp_path / "m.safetensors").read_bytes()
    assert again == (folder / "m.safetensors").read_bytes()


def test_evaluation_needs_no_other_file(folder):
    found = []
    for arguments in (["--workdir=work"], ["--checkpoint=m.safetensors"]):
        code, _, stderr = run(
            folder,
            *arguments,
            "--data_dir=images",
            "--json=figures.json",
            module="eval.imagenet",
        )
        assert code == 0, stderr
        found.append(json.loads((folder / "figures.json").read_text()))
    for name in ("top1", "top5", "loss"):
        assert found[0][name] == found[1][name]


def header_of(card):
    """The YAML of a card, each value of which is JSON."""
    _, header, _ = card.split("---\n", 2)
    pairs = (line.split(": ", 1) for line in header.splitlines())
    return {key: json.loads(value) for key, value in pairs}


def test_the_card_says_what_the_file_does(folder):
    text = (folder / "m.md").read_text()
    body = text.split("---\n", 2)[2]
    said = header_of(text)
    assert said["license"] == "unknown"
    assert said["pipeline_tag"] == "image-classification"
    assert said["metrics"] == ["accuracy"]
    sha256 = checkpoints.sha256(folder / "m.safetensors")
    assert f"| SHA-256 | {sha256} |" in body
    best = checkpoints.read_checkpoint(folder / "work/checkpoints/best.pth")
    assert f"| top-1, % | {round(best['top1_val'], 4)} |" in body
    assert "| averaged weights | true |" in body
    assert str(folder) not in text
    assert str(folder).encode() not in (folder / "m.safetensors").read_bytes()


def test_the_cards_program_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (folder / "m.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (folder / "program.py").write_text(program)
    with gin.unlock_config():
        gin.clear_config()
        names = runpy.run_path(str(folder / "program.py"))
    expected = network_of(folder / "m.safetensors").model
    assert torch.equal(logits(names["model"]), logits(expected))


def published(folder, name="published.pth", **entries):
    """As the paper's authors saved theirs, of a small network."""
    jobs.configure(folder)
    torch.manual_seed(3)
    model = san.create_model(num_classes=3)
    weights = {f"module.{n}": t for n, t in model.state_dict().items()}
    contents = {"epoch": 7, "state_dict": weights, "top1_val": 74.9, **entries}
    torch.save(contents, folder / name)
    return model


def test_a_published_file_and_the_names_of_its_classes(tmp_path):
    model = published(tmp_path)
    names = ["cat", 'a "dög" | <b>', "zebra"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    export = [
        "export",
        f"--gin_file={tmp_path}/small.gin",
        "--checkpoint=published.pth",
        "--output=p.safetensors",
    ]
    code, _, stderr = run(tmp_path, *export)
    assert code == 2
    assert "must name its classes, got none; give --classes=FILE" in stderr
    assert not (tmp_path / "p.safetensors").exists()
    code, _, stderr = run(
        tmp_path,
        *export,
        "--classes=names.txt",
        "--source=the authors",
        "--license=mit",
    )
    assert code == 0, stderr
    network = network_of(tmp_path / "p.safetensors")
    assert network.classes == names
    assert torch.equal(logits(network.model), logits(model))
    card = (tmp_path / "p.md").read_text()
    assert header_of(card)["license"] == "mit"
    assert "| top-1, % | 74.9 |" in card and "is unknown" in card
    assert "the authors" in card and json.dumps(names) in card
    code, _, stderr = run(tmp_path, *export, "--classes=unknown")
    assert code == 0, stderr
    assert network_of(tmp_path / "p.safetensors").classes is None
    for text in ("cat\ndog", "cat\ncat\ndog", "cat\n\ndog"):
        (tmp_path / "names.txt").write_text(text)
        code, _, stderr = run(tmp_path, *export, "--classes=names.txt")
        assert code == 2 and "must name 3 different classes" in stderr


def test_figures_are_of_these_weights_or_unknown(folder):
    best = checkpoints.read_checkpoint(folder / "work/checkpoints/best.pth")
    assert facts.figures(best)["top1"] == best["top1_val"]
    best["state"]["step"] = 2  # Two steps on, they are other weights.
    assert facts.figures(best) == {}
    assert facts.figures({"top1_val": None}) == {}


@pytest.mark.parametrize("kind", ["ours", "published", "foreign", "halves"])
def test_inspect(folder, tmp_path, kind):
    path = tmp_path / "m.safetensors"
    if kind == "ours":
        path = folder / "m.safetensors"
    elif kind == "published":
        published(tmp_path)
        path = tmp_path / "published.pth"
    else:
        model = published(tmp_path)
        weights = model.state_dict()
        if kind == "halves":
            weights = {n: t.bfloat16() for n, t in weights.items()}
        safetensors.torch.save_file(weights, path)
    code, stdout, stderr = run(
        tmp_path, "inspect", f"--checkpoint={path}", "--json=found.json"
    )
    assert code == 0, stderr
    found = json.loads((tmp_path / "found.json").read_text())
    parameters = sum(p.numel() for p in jobs_model().parameters())
    assert found["parameters"] == parameters
    assert found["num_classes"] == 3
    assert found["sha256"] == checkpoints.sha256(path)
    is_ours = kind == "ours"
    assert found["own_digest"] == (
        "verified" if is_ours else "none in the file"
    )
    assert found["dtypes"] == ["bfloat16" if kind == "halves" else "float32"]
    assert found["classes"] == (["a", "b", "c"] if is_ours else None)
    assert found["format"] == (
        "torch.save" if kind == "published" else "safetensors"
    )
    expected = {"ours": (1, True), "published": (7, False)}
    assert (found["epochs"], found["averaged"]) == expected.get(
        kind, (None, None)
    )
    assert f"{parameters:,}" in stdout


def jobs_model():
    with torch.device("meta"):
        return san.SAN(
            san.PatchwiseAttention, (1, 1), (3, 3), (32, 32), num_classes=3
        )


def test_a_full_network_is_recognised(tmp_path):
    config.parse([])
    with torch.device("meta"):
        names = san.create_model("san10_pair").state_dict()
    weights = {name: torch.zeros(t.shape) for name, t in names.items()}
    torch.save({"model": weights, "args": {"lr": 1}}, tmp_path / "m.pth")
    read = checkpoints.read_checkpoint(tmp_path / "m.pth")
    found = facts.summary(read, checkpoints.state_dict_of(read, "m.pth"))
    assert found["weights_fit"] == "san10_pair"
    assert found["parameters"] == 10_531_848
    assert facts.left_out(read) == ["args"]


def test_what_other_tools_have_by_the_same_names(tmp_path):
    model = published(tmp_path)
    odd = {
        "epoch": torch.tensor(3),
        "state": {"latest": [1], "rng": torch.zeros(3)},
        "recipe": "bread",
        "settings": {1, 2},
        "classes": 3,
        "top1_val": "high",
        "source": b"bytes",
    }
    torch.save({"network": model.state_dict(), **odd}, tmp_path / "odd.pth")
    code, stdout, stderr = run(
        tmp_path, "import", "--checkpoint=odd.pth", "--output=back.pth"
    )
    assert code == 0, stderr
    assert f"left out: {', '.join(odd)}\n" in stdout
    back = checkpoints.read_checkpoint(tmp_path / "back.pth")
    assert back.keys() == {"state_dict"}
    jobs.assert_same_bits(back["state_dict"], dict(model.state_dict()))
    code, _, stderr = run(
        tmp_path,
        "export",
        f"--gin_file={tmp_path}/small.gin",
        "--checkpoint=odd.pth",
        "--classes=unknown",
        "--output=o.safetensors",
    )
    assert code == 0, stderr
    assert torch.equal(
        logits(network_of(tmp_path / "o.safetensors").model), logits(model)
    )


def test_a_configuration_that_would_run_something(tmp_path):
    jobs.configure(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    good = config.bindings()
    for evil in (
        {"SAN.widths": "(32, 32)\nimport evil"},
        {"import evil\nSAN.widths": "(32, 32)"},
        {"import": "evil"},
        {"SAN.widths": ["(32, 32)"]},
    ):
        told = {
            safetensors_file.FACTS: json.dumps({"configuration": good | evil})
        }
        content = safetensors_file.pack(jobs_weights(), told)
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="bindings of one line, got"):
            network_of(tmp_path / "m.safetensors")
        assert not (tmp_path / "ran").exists()


def jobs_weights():
    return san.SAN(
        san.PatchwiseAttention, (1, 1), (3, 3), (32, 32), num_classes=3
    ).state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "must have one of export, import, inspect, got 'none'"),
        (["convert"], "got 'convert'"),
        (["export"], "exactly one of --workdir and --checkpoint"),
        (["export", "--workdir=work"], "ends in .safetensors, got none"),
        (
            ["export", "--workdir=work", "--output=m.pth"],
            "must name a file that ends in .safetensors",
        ),
        (
            ["import", "--checkpoint=m.safetensors", "--output=m.safetensors"],
            "must name a file that ends in .pth",
        ),
        (
            ["export", "--checkpoint=none.pth", "--output=o.safetensors"],
            "must be a checkpoint file, got",
        ),
        (
            ["inspect", "--checkpoint=cut.safetensors"],
            "must be a whole safeten",
        ),
        (["inspect", "--checkpoint=flipped.safetensors"], "which is damaged"),
        (["inspect", "--checkpoint=pointer.safetensors"], "git lfs pull does"),
        (
            ["inspect", "--workdir=work", "--source=x"],
            "--source must not be gi",
        ),
        (
            ["import", "--workdir=work", "--gin_param=SAN.widths=(1,)"],
            "--gin_param must not be given to import",
        ),
        (
            [
                "export",
                "--workdir=work",
                "--output=o.safetensors",
                "--gin_param=SAN.widths=(64,64)",
            ],
            "must be of the same network, got widths [32, 32] instead of",
        ),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    content = (folder / "m.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-3])
    flipped = bytearray(content)
    flipped[-5] ^= 4
    (folder / "flipped.safetensors").write_bytes(flipped)
    (folder / "pointer.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n"
    )
    code, stdout, stderr = run(folder, *arguments)
    assert code in (1, 2) and message in stderr
    assert stderr.startswith("error: ") and len(stderr.splitlines()) == 1
    assert not stdout and not (folder / "o.safetensors").exists()


def test_training_does_not_go_on_from_what_was_sent(folder, tmp_path):
    shutil.copytree(folder / "work", tmp_path / "work")
    last = tmp_path / "work" / "checkpoints" / "last.pth"
    code, _, stderr = run(
        folder, "import", "--checkpoint=m.safetensors", f"--output={last}"
    )
    assert code == 0, stderr
    with pytest.raises(ValueError, match=r"must be a checkpoint written by"):
        jobs.train_with(
            tmp_path / "work",
            folder / "images",
            "Recipe.epochs = 2",
            "Recipe.ema_decay = 0.5",
        )


def test_what_is_there_is_not_written_over(folder, tmp_path):
    """Somebody's text beside the weights, and what training goes on from."""
    (tmp_path / "README.md").write_text("# Mine\n")
    for _ in range(2):  # A card takes the place of a card.
        for name, code in (("README", 2), ("model", 0)):
            found, _, stderr = run(
                folder,
                "export",
                "--workdir=work",
                f"--output={tmp_path / name}.safetensors",
            )
            assert found == code
            assert ("must leave the name of its model card free" in stderr) == (
                code == 2
            )
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
    assert not (tmp_path / "README.safetensors").exists()
    path = shutil.copy(folder / "work" / "checkpoints" / "last.pth", tmp_path)
    before = (tmp_path / "last.pth").read_bytes()
    (tmp_path / "link.pth").symlink_to(path)
    for output in ("last.pth", "link.pth"):
        code, _, stderr = run(
            tmp_path,
            "import",
            "--checkpoint=last.pth",
            f"--output={output}",
        )
        assert code == 2 and stderr.count("\n") == 1
        assert "must be another file than the one imported" in stderr
    assert (tmp_path / "last.pth").read_bytes() == before


def test_other_dtypes_and_numbers_that_are_none_are_said(folder, tmp_path):
    weights = network_of(folder / "m.safetensors").model.state_dict()
    doubles = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
    torch.save(doubles, tmp_path / "doubles.pth")
    classes = "\n".join(["a", "b", "c"])
    (tmp_path / "classes.txt").write_text(classes, encoding="utf-8-sig")
    code, stdout, stderr = run(
        tmp_path,
        "export",
        "--checkpoint=doubles.pth",
        f"--gin_file={folder / 'work' / 'config.gin'}",
        "--classes=classes.txt",
        "--output=d.safetensors",
    )
    assert code == 0, stderr
    assert stdout.startswith("weights were float64, and are float32 now\n")
    read = checkpoints.read_checkpoint(tmp_path / "d.safetensors")
    assert read["classes"] == ["a", "b", "c"]
    doubles["fc.bias"][1] = float("inf")
    torch.save(doubles, tmp_path / "inf.pth")
    code, stdout, _ = run(tmp_path, "inspect", "--checkpoint=inf.pth")
    assert code == 0
    assert re.search(r"^not finite +fc\.bias$", stdout, re.MULTILINE)
    code, stdout, _ = run(tmp_path, "inspect", "--checkpoint=doubles.pth")
    assert re.search(r"^not finite +nothing$", stdout, re.MULTILINE)
