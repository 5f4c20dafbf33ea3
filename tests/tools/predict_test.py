"""The predictions of images, as a user asks for them."""

import json
import os
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

import san
from eval import loading
from san.data import Data, ValidationLoader, load_split
from tests.data import odd_files
from tests.data.sample_images import picture
from tests.train import jobs
from tools.predict import images, prediction

CLASSES = ["cat", "dög", "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, its gin file, and images of which two are no good."""
    folder = tmp_path_factory.mktemp("predict")
    jobs.configure(folder)
    torch.manual_seed(0)
    checkpoint = {
        "state_dict": san.create_model(num_classes=3).state_dict(),
        "classes": CLASSES,
    }
    torch.save(checkpoint, folder / "named.pth")
    del checkpoint["classes"]
    torch.save(checkpoint, folder / "unnamed.pth")
    root = folder / "images"
    (root / "deep" / ".hidden").mkdir(parents=True)
    picture(61, 83, seed=1).save(root / "a.JPEG")
    picture(35, 19, seed=2).save(root / "deep" / "b.png")
    picture(35, 19, seed=2).save(root / "deep" / ".hidden" / "c.png")
    odd = os.fsencode(root) + b"/\xff.jpg"
    picture(40, 40, seed=3).save(os.fsdecode(odd))
    damaged = odd_files.DAMAGED["bad_tables.jpg"]
    (root / "damaged.jpg").write_bytes(damaged)
    (root / "empty.jpg").touch()
    (root / "notes.txt").write_text("no image")
    return folder


def predict(folder, *arguments):
    return jobs.run(
        "tools.predict.main",
        f"--gin_file={folder}/small.gin",
        *arguments,
        BUILD_WORKING_DIRECTORY=str(folder),
    )


def test_what_can_be_read_is_predicted_and_the_rest_named(folder):
    code, stdout, stderr = predict(
        folder,
        "images",
        "--checkpoint=named.pth",
        "gone.jpg",
        "--top=2",
        "--json=found.json",
        "--batch_size=3",
    )
    assert code == 1
    found = json.loads((folder / "found.json").read_text())
    paths = [one["path"] for one in found["images"]]
    names = [pathlib.Path(path).name for path in paths]
    assert names == ["a.JPEG", os.fsdecode(b"\xff.jpg"), "b.png"]
    unreadable = {
        pathlib.Path(one["path"]).name: one["reason"]
        for one in found["unreadable"]
    }
    assert unreadable.keys() == {"empty.jpg", "gone.jpg", "damaged.jpg"}
    for name, reason in unreadable.items():
        assert f"{name} {reason}\n" in stderr
    assert "Traceback" not in stderr
    for one, line in zip(found["images"], stdout.splitlines(), strict=True):
        first, second = one["classes"]
        assert first["probability"] >= second["probability"]
        assert CLASSES[first["label"]] == first["name"]
        percent = f"{100 * first['probability']:.1f}%"
        assert f": {first['name']} {percent}, {second['name']} " in line


def test_probabilities_are_those_of_the_validation(folder, tmp_path):
    jobs.configure(folder)
    asked = loading.read_network(folder / "named.pth", None)
    sizes = [(31, 70), (44, 18)]
    for number, (height, width) in enumerate(sizes):
        path = tmp_path / "val" / "cat" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(height, width, seed=number).save(path)
    index = load_split(str(tmp_path), "val")
    loader = ValidationLoader(index, Data(), batch_size=2, device="cpu")
    ((pixels, _),) = loader
    with torch.no_grad():
        expected = asked.model.eval()(pixels).softmax(1)
    found, bad = images.look_at(images.files_of([str(tmp_path)]))
    assert not bad and [one[1:] for one in found] == sizes
    answers = prediction.predict(
        asked,
        found,
        Data(),
        precision="float32",
        batch_size=1,
        top=7,
        device=torch.device("cpu"),
    )
    for answer, row in zip(answers, expected, strict=True):
        assert [guess.label for guess in answer.guesses] == row.argsort(
            descending=True
        ).tolist()
        values = [guess.probability for guess in answer.guesses]
        torch.testing.assert_close(torch.tensor(values), row.sort()[0].flip(0))


def test_without_names_classes_have_numbers(folder):
    code, stdout, stderr = predict(
        folder, "--checkpoint=unnamed.pth", "images/a.JPEG", "--top=9"
    )
    assert code == 0
    assert stderr == (
        "the checkpoint does not name its classes: they have numbers\n"
    )
    (line,) = stdout.splitlines()
    labels = [part.split()[0] for part in line.split(": ")[1].split(", ")]
    assert sorted(labels) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=named.pth"], "must name images or folders, got none"),
        (["--checkpoint=none.pth", "images"], "must be a checkpoint file"),
        (["images"], "exactly one of --workdir and --checkpoint"),
        (["--checkpoint=named.pth", "void"], "must hold images, got"),
        (
            [
                "--checkpoint=named.pth",
                "images",
                "--gin_param=SAN.widths=(64,64)",
            ],
            "entries must be those of the model",
        ),
        (
            ["--checkpoint=named.pth", "images", "--json=no/x.json"],
            "--json must be a file in an existing folder",
        ),
        (
            ["--checkpoint=named.pth", "--json", "images/a.JPEG", "images"],
            "--json must not be another kind of file that is there",
        ),
        (
            ["--checkpoint=named.pth", "images", "--json", "--top=2"],
            "--json must be a file, got --top=2, a flag",
        ),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    (folder / "void").mkdir(exist_ok=True)
    code, stdout, stderr = predict(folder, *arguments)
    assert code in (1, 2)
    assert stderr.startswith("error: ") and message in stderr
    assert len(stderr.splitlines()) == 1
    assert not stdout


def test_as_many_images_as_a_batch_and_one_more(folder):
    array = np.zeros((20, 20, 3), np.uint8)
    (folder / "many").mkdir()
    for number in range(5):
        Image.fromarray(array + number).save(folder / "many" / f"{number}.png")
    found, _ = images.look_at(images.files_of([str(folder / "many")] * 2))
    data = Data(image_size=12, resize_size=14, num_threads=1)
    batches = images.batches(found, data, 4, torch.device("cpu"))
    assert [len(pixels) for _, pixels in batches] == [4, 1]


def test_the_figures_are_written_though_nobody_reads_the_lines(folder):
    process = jobs.start(
        "tools.predict.main",
        f"--gin_file={folder}/small.gin",
        "--checkpoint=named.pth",
        "images/a.JPEG",
        "images/deep/b.png",
        "--json=unread.json",
        BUILD_WORKING_DIRECTORY=str(folder),
    )
    process.stdout.close()
    assert process.stderr.read() == f"written: {folder / 'unread.json'}\n"
    assert process.wait() == 0
    found = json.loads((folder / "unread.json").read_text())
    assert len(found["images"]) == 2


def test_what_is_no_number_is_no_prediction(folder):
    checkpoint = torch.load(folder / "named.pth", weights_only=True)
    weight = checkpoint["state_dict"]["fc.weight"]
    weight.fill_(3e38)  # Finite, but not what is summed of it.
    torch.save(checkpoint, folder / "large.pth")
    weight[0, 0] = float("nan")
    torch.save(checkpoint, folder / "nan.pth")
    for name, message in (
        ("large", "logits must be finite, got others for"),
        ("nan", "weights must be finite, got NaN or infinity in fc.weight"),
    ):
        code, stdout, stderr = predict(
            folder, f"--checkpoint={name}.pth", "images/a.JPEG"
        )
        assert code in (1, 2) and not stdout
        assert message in stderr and len(stderr.splitlines()) == 1
