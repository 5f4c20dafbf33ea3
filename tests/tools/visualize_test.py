import re

import pytest
import torch
from PIL import Image

from tests.train import command_server, jobs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return jobs.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("run")
    jobs.configure(folder, "Recipe.epochs = 1")
    return jobs.train(folder / "run", images)


def visualize(folder, *arguments):
    return command_server.run(
        "tools.visualize", *arguments, BUILD_WORKING_DIRECTORY=str(folder)
    )


def test_a_page_and_a_sheet_of_an_image(tmp_path, run, images):
    Image.open(images / "val" / "a" / "0.jpg").save(tmp_path / "photo.png")
    code, _, stderr = visualize(
        tmp_path,
        f"--workdir={run.path}",
        "--image=photo.png",
        "--page=page.html",
        "--sheet=sheet.png",
    )
    assert code == 0, stderr
    assert stderr.splitlines() == [
        f"written: {tmp_path / 'page.html'}",
        f"written: {tmp_path / 'sheet.png'}",
    ]
    page = (tmp_path / "page.html").read_text()
    # 12 pixels a side: 6, and 3 after another stage.
    assert '"name": "layer0.0", "side": 3, "height": 6, "width": 6' in page
    # One of two classes is the likelier.
    assert re.search(r"<h1>.*: photo\.png, seen as [ab] \d\d+\.\d%</h1>", page)
    assert '"name": "layer1.0", "side": 3, "height": 3, "width": 3' in page
    whole = Image.open(tmp_path / "sheet.png").size
    code, _, stderr = visualize(
        tmp_path,
        f"--checkpoint={run.best}",
        f"--gin_file={run.config}",
        "--image=photo.png",
        "--block=layer1.0",
        "--pixel=2,0",
        "--sheet=pixel.png",
    )
    assert code == 0, stderr
    assert Image.open(tmp_path / "pixel.png").size[1] < whole[1]


def test_the_mean_over_validation_images(tmp_path, run):
    code, _, stderr = visualize(
        tmp_path, f"--workdir={run.path}", "--sheet=mean.png", "--num_images=7"
    )
    assert code == 0, stderr
    assert Image.open(tmp_path / "mean.png").size[0] > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "visualize: --page or --sheet must name a file to write"),
        (["--page=page.html"], "visualize: --image must name an image"),
        (
            ["--page=page.html", "--image=none.jpg"],
            "none.jpg, which cannot be read (No such file or directory)",
        ),
        (["--page=page.html", "--image=text.jpg"], "text.jpg, which is "),
        (
            ["--image=photo.png", "--page=page.html", "--block=layer7.0"],
            "--block must be a block of the network, got 'layer7.0'. Known:"
            " layer0.0.sam, layer1.0.sam",
        ),
        (
            ["--image=photo.png", "--sheet=sheet.png", "--pixel=1,1"],
            "--block must say whose pixel --pixel is",
        ),
        (
            [
                "--image=photo.png",
                "--sheet=sheet.png",
                "--pixel=1,3",
                "--block=layer1.0",
            ],
            "--pixel must be ROW,COLUMN below 3,3",
        ),
        (
            ["--image=photo.png", "--page=page.html", "--pixel=1,1"],
            "--pixel must come with --sheet, which alone reads it",
        ),
        (
            ["--image=photo.png", "--sheet=sheet.png", "--groups=2"],
            "--groups must come with --page, which alone reads it",
        ),
        (
            ["--image=photo.png", "--sheet=sheet.png", "--num_images=8"],
            "--num_images must come with --sheet without --image, which alone",
        ),
        (
            ["--image=photo.png", "--sheet=sheet.png", "--data_dir=."],
            "--data_dir must come with --sheet without --image, which alone",
        ),
        (["--sheet=sheet.pdf"], "--sheet must name a file that ends in .png"),
        (
            ["--image=photo.png", "--page=a.png", "--sheet=./a.png"],
            "--page and --sheet must be different files",
        ),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, run, images, arguments, message):
    Image.open(images / "val" / "a" / "0.jpg").save(tmp_path / "photo.png")
    (tmp_path / "text.jpg").write_text("no image")
    code, _, stderr = visualize(tmp_path, f"--workdir={run.path}", *arguments)
    assert code == 2
    assert stderr.count("\n") == 1 and message in stderr
    assert not (tmp_path / "page.html").exists()


def test_names_are_no_formulas(tmp_path, run, images):
    name = "a$b_{$ <b>.png"
    Image.open(images / "val" / "a" / "0.jpg").save(tmp_path / name)
    code, _, stderr = visualize(
        tmp_path,
        f"--workdir={run.path}",
        f"--image={name}",
        "--sheet=sheet.png",
    )
    assert code == 0
    assert stderr == f"written: {tmp_path / 'sheet.png'}\n"


def test_an_empty_name_is_no_missing_flag(tmp_path, run):
    """As of a shell's variable that is not set."""
    code, _, stderr = visualize(
        tmp_path, f"--workdir={run.path}", "--image=", "--sheet=sheet.png"
    )
    assert code == 1
    assert "--image must name a file or a folder, got an empty text" in stderr
    assert not (tmp_path / "sheet.png").exists()


def test_a_network_without_attention(tmp_path, images):
    settings = tmp_path / "resnet.gin"
    settings.write_text(
        "create_model.name = @ResNet\nResNet.num_blocks = (1, 1, 1, 1)\n"
        "ResNet.widths = (8, 8, 8, 8)\nData.image_size = 32\n"
        "Data.resize_size = 32\nRecipe.batch_size = 6\nRecipe.epochs = 1\n"
    )
    code, _, stderr = jobs.run(
        "train.main",
        f"--gin_file={settings}",
        f"--data_dir={images}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0, stderr
    code, _, stderr = visualize(tmp_path, "--workdir=run", "--sheet=mean.png")
    assert code == 2
    assert "attention blocks, got a ResNet without" in stderr


def test_a_page_says_no_class_of_what_is_no_number(tmp_path, run, images):
    Image.open(images / "val" / "a" / "0.jpg").save(tmp_path / "photo.png")
    checkpoint = torch.load(run.best, weights_only=True)
    checkpoint["state_dict"]["fc.weight"].fill_(3e38)
    torch.save({"state_dict": checkpoint["state_dict"]}, tmp_path / "large.pth")
    code, _, stderr = visualize(
        tmp_path,
        "--checkpoint=large.pth",
        f"--gin_file={run.config}",
        "--image=photo.png",
        "--page=page.html",
    )
    assert code and "logits must be finite, got others for photo.png" in stderr
    assert not (tmp_path / "page.html").exists()
