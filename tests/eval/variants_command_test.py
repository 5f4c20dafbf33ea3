"""Variants of ImageNet as a user asks for them."""

import json

import pytest

from eval.variants import corruptions
from tests.eval import nearest_colour
from tests.train import command_server, jobs

WNIDS = nearest_colour.synsets(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of six classes beside images of all kinds."""
    folder = tmp_path_factory.mktemp("folder")
    nearest_colour.configure(folder)
    nearest_colour.checkpoint(folder / "net.pth", 6, classes=WNIDS)
    nearest_colour.write(folder / "v2", {f"{k}/a.png": k for k in range(6)})
    # The second image is taken for class 0.
    nearest_colour.write(folder / "v2", {"3/b.png": 0})
    nearest_colour.write(
        folder / "val",
        {
            f"val/{name}/ILSVRC2012_val_{k + 1:08}.JPEG": k
            for k, name in enumerate(WNIDS)
        },
    )
    nearest_colour.write_json(folder / "real.json", [[k] for k in range(6)])
    nearest_colour.write_json(folder / "map.json", {"x": 1, "y": WNIDS[2]})
    nearest_colour.write(folder / "own", {"x/1.png": 1, "y/1.png": 3})
    for severity in corruptions.SEVERITIES:
        nearest_colour.write(
            folder / "c" / "blur" / "zoom_blur" / str(severity),
            {
                f"{name}/a.JPEG": 0 if k < severity else k
                for k, name in enumerate(WNIDS)
            },
            side=12,
        )
    return folder


def run(folder, *arguments):
    return command_server.run(
        "eval.imagenet",
        "--gin_file=nearest.gin",
        "--checkpoint=net.pth",
        *arguments,
        BUILD_WORKING_DIRECTORY=str(folder),
    )


def test_a_variant_with_every_report(folder, tmp_path):
    code, stdout, stderr = run(
        folder,
        "--variant=v2",
        "--data_dir=v2",
        f"--json={tmp_path / 'v2.json'}",
        f"--csv={tmp_path / 'v2.csv'}",
        f"--report={tmp_path / 'v2.html'}",
        "--against=net.pth",
    )
    assert code == 0
    assert stderr.splitlines() == [
        f"written: {tmp_path / name}"
        for name in ("v2.json", "v2.csv", "v2.html")
    ]
    assert "\ntop-1    85.71%\n" in stdout
    assert stdout.splitlines()[1].startswith("ImageNetV2 (Recht et al.")
    figures = json.loads((tmp_path / "v2.json").read_text())
    assert figures["top1"] == pytest.approx(600 / 7)
    assert figures["per_class"][WNIDS[3]]["num_images"] == 2
    assert f"{WNIDS[3]},2,50.0" in (tmp_path / "v2.csv").read_text()
    assert "ImageNetV2" in (tmp_path / "v2.html").read_text()


def test_a_set_of_ones_own_at_two_sizes(folder, tmp_path):
    code, stdout, stderr = run(
        folder,
        "--class_map=map.json",
        "--data_dir=own",
        "--among=folders",
        "--image_size=12,8",
        f"--json={tmp_path / 'own.json'}",
    )
    assert (code, stderr) == (0, f"written: {tmp_path / 'own.json'}\n")
    head, about, _, *lines = stdout.splitlines()
    assert head.endswith("net.pth")
    assert about == (
        "2 class folders by map.json: predictions among 2 of the network's 6"
        " classes"
    )
    # Class 3 is nearest to 2 of the two, and is another of all six.
    assert [line.split()[2] for line in lines] == ["100.00%", "100.00%"]
    assert len(json.loads((tmp_path / "own.json").read_text())) == 2


def test_real_labels(folder):
    code, stdout, stderr = run(
        folder, "--data_dir=val", "--real_labels=real.json"
    )
    assert (code, stderr) == (0, "")
    assert (
        "\nReaL    100.00%    6 images; 0 without labels left out\n" in stdout
    )


def test_corruptions(folder, tmp_path):
    """Severity s has s of six taken for class 0, of which one is right."""
    code, stdout, stderr = run(
        folder,
        "--variant=c",
        "--data_dir=c",
        f"--json={tmp_path / 'c.json'}",
        f"--csv={tmp_path / 'c.csv'}",
    )
    assert code == 0
    assert "warning: there will be no mean corruption error without" in stderr
    lines = stdout.splitlines()
    assert " ".join(lines[3].split()) == (
        "zoom_blur 0.00% 16.67% 33.33% 50.00% 66.67% 33.33% -"
    )
    assert lines[4].startswith("no mean corruption error (mCE): without gauss")
    assert lines[5] == (
        "6 images each, NOT the 50000 that it was distributed with"
    )
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["corruptions"]["zoom_blur"]["error"] == pytest.approx(
        100 / 3
    )
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 6


def test_what_is_known_is_printed_before_the_end(folder, tmp_path):
    """A file that cannot be used, in the second corruption, ends it."""
    for name in ("snow", "fog"):
        nearest_colour.write(
            tmp_path / name / "1",
            {f"{wnid}/a.JPEG": k for k, wnid in enumerate(WNIDS)},
            side=12,
        )
    (tmp_path / "fog" / "1" / WNIDS[2] / "a.JPEG").write_bytes(b"GIF89a")
    code, stdout, stderr = run(folder, "--variant=c", f"--data_dir={tmp_path}")
    assert code == 2
    assert stdout.splitlines()[-1].split()[:2] == ["snow", "0.00%"]
    assert "a.JPEG is not a JPEG, PNG, BMP or WebP image but a GIF" in stderr


def test_several_processes_count_every_image_once(folder):
    arguments = [
        f"--gin_file={folder / 'nearest.gin'}",
        f"--checkpoint={folder / 'net.pth'}",
    ]
    (code, stdout, _), (other, nothing, _) = jobs.run_processes(
        2,
        "eval.imagenet",
        *arguments,
        "--variant=v2",
        f"--data_dir={folder / 'v2'}",
    )
    assert (code, other, nothing) == (0, 0, "")
    assert "\ntop-1    85.71%\n" in stdout
    (code, stdout, _), (other, nothing, _) = jobs.run_processes(
        2,
        "eval.imagenet",
        *arguments,
        "--variant=c",
        f"--data_dir={folder / 'c'}",
    )
    assert (code, other, nothing) == (0, 0, "")
    assert "  66.67%  33.33%" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--variant=v2"],
            "--variant must come with --data_dir, the folder that holds its"
            " class folders, got v2 alone",
        ),
        (["--class_map=map.json"], "--class_map must come with --data_dir"),
        (["--among=all"], "--among must come with --class_map and without"),
        (
            ["--variant=v2", "--data_dir=v2", "--among=all"],
            "--among must come with --class_map and without --variant",
        ),
        (
            ["--variant=v2", "--data_dir=v2", "--real_labels=real.json"],
            "--real_labels must come without --variant and --class_map",
        ),
        (
            ["--variant=c", "--data_dir=c", "--report=page.html"],
            "--variant=c must come without --report",
        ),
        (
            ["--variant=c", "--data_dir=c", "--image_size=8,12"],
            "with one --image_size at most, that of its images",
        ),
        (
            ["--variant=c", "--data_dir=c", "--image_size=8"],
            "as large as the network's input, Data.image_size = 8",
        ),
        (["--variant=a", "--data_dir=none"], "none does not exist"),
    ],
)
def test_mistakes_are_one_clear_message(folder, arguments, message):
    code, _, stderr = run(folder, *arguments)
    assert code == 2
    error = stderr.splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_an_unknown_variant(folder):
    code, _, stderr = run(folder, "--variant=v3", "--data_dir=v2")
    assert code == 1
    assert "v2|a|r|sketch|c" in stderr
